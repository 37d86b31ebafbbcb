"""NBD exports as destinations."""

from __future__ import annotations

import errno
from functools import partial

from lvolfs._native.endpoint import Endpoint
from lvolfs._native.nbd import CONNECT_SECONDS, NbdTarget
from lvolfs.bdev.apart import call_apart
from lvolfs.bdev.destination import Destination
from lvolfs.bdev.rights import as_client

SCHEMES = ("nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://")


def is_nbd_uri(text: str) -> bool:
    return text.lower().startswith(SCHEMES)


def _connect(uri: str) -> NbdTarget:
    # Looking up the host's name can take minutes, and nothing ends it: getaddrinfo() knows no
    # timeout. Everything else NbdTarget bounds itself, in a little less time.
    return call_apart(
        partial(NbdTarget, uri, connect_seconds=CONNECT_SECONDS),
        "lvolfs-nbd-connect",
        seconds=CONNECT_SECONDS + 1,
        too_late=f"NBD server {uri} cannot be reached: looking up its name has taken more than "
        f"{CONNECT_SECONDS:g} s; give its address, or see to the name service",
    )


def open_nbd(uri: str) -> Destination:
    """Connects to an export; whether others write to it is its server's business.

    OSError: what libnbd reports, ETIMEDOUT for a server that does not answer or whose name is
    not resolved in time, EROFS for a read-only export.
    """
    target = as_client(_connect, uri)
    if target.read_only:
        target.close()
        raise OSError(errno.EROFS, f"destination {uri} is a read-only export")
    destination = Destination("nbd", uri, target.size, Endpoint.of_nbd(target))
    destination.held.callback(target.close)
    return destination
