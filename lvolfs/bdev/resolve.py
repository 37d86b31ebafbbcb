"""From what a user writes to an open destination."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lvolfs.bdev.destination import Destination
from lvolfs.bdev.file import open_file
from lvolfs.bdev.lvol import open_lvol
from lvolfs.bdev.nbd import is_nbd_uri, open_nbd
from lvolfs.bdev.rights import as_client

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore


def open_destination(destination: Lvol | str | os.PathLike[str], store: Lvstore) -> Destination:
    """Opens a destination for writing.

    A text is an NBD URI, a path if it starts with "/", "./" or "../", and otherwise a name,
    uuid or "lvs/name" of an lvol in `store`. May block on the network or a file system, so
    the thread that serves a mount must not call it.
    """
    if not isinstance(destination, str | os.PathLike):
        return open_lvol(destination)
    text = os.fspath(destination)
    if not text or "\0" in text:
        raise OSError(errno.EINVAL, f"destination {text!r} is not a name, path or NBD URI")
    if is_nbd_uri(text):
        return open_nbd(text)
    if text.startswith(("/", "./", "../")) or isinstance(destination, os.PathLike):
        _refuse_own_device(text, store)
        return open_file(text)
    return open_lvol(store.get(text))


def _refuse_own_device(path: str, store: Lvstore) -> None:
    try:
        same = os.path.samestat(as_client(os.stat, path), Path(store.path).stat())
    except OSError:
        return  # missing, or out of the client's reach: open_file says so
    if same:
        raise OSError(
            errno.EBUSY,
            f"destination '{path}' is the file that store '{store.name}' itself is kept in",
        )
