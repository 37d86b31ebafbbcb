"""NBD exports as destinations."""

from __future__ import annotations

import errno

from lvolfs._native.endpoint import Endpoint
from lvolfs._native.nbd import NbdTarget
from lvolfs.bdev.destination import Destination
from lvolfs.bdev.rights import as_client

SCHEMES = ("nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://")


def is_nbd_uri(text: str) -> bool:
    return text.lower().startswith(SCHEMES)


def open_nbd(uri: str) -> Destination:
    """Connects to an export; whether others write to it is its server's business.

    OSError: what libnbd reports, EROFS for a read-only export.
    """
    target = as_client(NbdTarget, uri)
    if target.read_only:
        target.close()
        raise OSError(errno.EROFS, f"destination {uri} is a read-only export")
    destination = Destination("nbd", uri, target.size, Endpoint.of_nbd(target))
    destination.held.callback(target.close)
    return destination
