"""Lvols of an open store as destinations."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from lvolfs._native.endpoint import Endpoint
from lvolfs.bdev.destination import Destination

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol


def open_lvol(lvol: Lvol, *, operation: str = "copy") -> Destination:
    """Opens a volume for writing and keeps other operations off it.

    OSError: EROFS for a snapshot, a read-only lvol or store, EBUSY when it is open for
    writing elsewhere or another operation has it.
    """
    what = f"destination lvol '{lvol.name}'"
    if lvol.store.read_only:
        raise OSError(errno.EROFS, f"{what} is in store '{lvol.store.name}', open read-only")
    if lvol.is_snapshot:
        raise OSError(errno.EROFS, f"{what} is a snapshot; copy to a volume, or to a clone of it")
    if lvol.is_read_only:
        raise OSError(errno.EROFS, f"{what} is read-only")
    if lvol.writers:
        raise OSError(
            errno.EBUSY, f"{what} is open for writing elsewhere; disconnect whoever uses it first"
        )
    endpoint = Endpoint.of_blob(lvol.blob, f"lvol '{lvol.store.name}/{lvol.name}'")
    destination = Destination("lvol", f"{lvol.store.name}/{lvol.name}", lvol.size, endpoint)
    try:
        destination.held.enter_context(lvol.claim(operation))
        destination.held.enter_context(lvol.open(write=True))
    except BaseException:
        destination.close()
        raise
    return destination
