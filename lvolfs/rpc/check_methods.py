"""The check of a store: an open one while it is used, a closed one with repairs."""

import errno
from typing import Any

from lvolfs.bdev.rights import require_own
from lvolfs.delta.store_check import check_closed, check_open
from lvolfs.report import documents
from lvolfs.rpc.table import own_method
from lvolfs.rpc.target import Target


@own_method("lvolfs_check", takes_long=True)
def check(
    target: Target,
    *,
    path: str | None = None,
    lvs_name: str | None = None,
    repair: bool = False,
    remove_damaged: bool = False,
) -> dict[str, Any]:
    """path: a file or device that nobody has open. Otherwise an open store, after a flush; I/O
    waits for its metadata to be read, and nothing is repaired. remove_damaged, with repair:
    delete damaged lvols for good."""
    if remove_damaged and not repair:
        raise OSError(errno.EINVAL, "remove_damaged is a repair: set repair, too")
    if path is not None:
        if lvs_name is not None:
            raise OSError(errno.EINVAL, "give path or lvs_name, not both")
        require_own(f"path '{path}'")
        report = check_closed(path, repair=repair, give_up_damaged=remove_damaged)
        return documents.check_document(report)
    store = target.only_store(lvs_name)
    if repair:
        where = target.mountpoints.get(store.path)
        way_out = f"run: lvolfs umount {where}" if where is not None else "close it first"
        raise OSError(
            errno.EBUSY, f"{store.path} is open, and can be repaired only when it is not; {way_out}"
        )
    return documents.check_document(check_open(store))
