"""Base devices: bdev_aio_*, bdev_uring_*, bdev_malloc_*, and what is told of all bdevs."""

import errno
import logging
import time
from functools import partial
from typing import Any

from lvolfs.bdev.rights import require_own
from lvolfs.blobstore.errors import FormatError
from lvolfs.lvstore.external import external_left
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from lvolfs.report.documents import of_each
from lvolfs.rpc.base_bdevs import BaseBdev, Kind, of_file, of_memory
from lvolfs.rpc.bdev_documents import (
    READ_MANY_WRITE_ONE,
    base_bdev_document,
    by_creation,
    claim_of,
    lvol_bdev_document,
)
from lvolfs.rpc.errors import ERRNO_CODE, INTERNAL_ERROR, INVALID_PARAMS, RpcError
from lvolfs.rpc.table import U32, U64, method
from lvolfs.rpc.target import Target

_log = logging.getLogger(__name__)


# -- coming


def examine(target: Target, bdev: BaseBdev) -> None:
    """Opens the store that a new device holds, if it does, and serves the clones that wait
    for it, or for what is in its store, as their external snapshot."""
    try:
        store = Lvstore.open(bdev.path, read_only=bdev.read_only)
    except FormatError as error:
        _log.info("bdev %s holds no store: %s", bdev.name, error)
        target.supply_externals()
        return
    if any(other.name == store.name for other in target.stores):
        store.close()
        raise OSError(errno.EEXIST, f"a store named '{store.name}' is open already")
    target.add_store(store)


def _add(target: Target, bdev: BaseBdev) -> str:
    with target.changing:
        target.bdevs.add(bdev)
        if target.bdevs.auto_examine:
            try:
                examine(target, bdev)
            except OSError:
                target.bdevs.remove(bdev)
                raise
    return bdev.name


@method("bdev_aio_create", failure_code=ERRNO_CODE, takes_long=True)
def aio_create(
    target: Target,
    *,
    name: str,
    filename: str,
    block_size: U32 = 0,
    readonly: bool = False,
    fallocate: bool = False,
    nowait: bool = False,  # noqa: ARG001
    uuid: str | None = None,
) -> str:
    """nowait has no meaning: no request waits in this process's main loop."""
    require_own(f"file '{filename}'")
    bdev = of_file(
        "aio", name, filename, block_size, uuid=uuid, read_only=readonly, fallocate=fallocate
    )
    return _add(target, bdev)


@method("bdev_uring_create", takes_long=True)
def uring_create(
    target: Target, *, name: str, filename: str, block_size: U32 = 0, uuid: str | None = None
) -> str:
    require_own(f"file '{filename}'")
    try:
        return _add(target, of_file("uring", name, filename, block_size, uuid=uuid))
    except OSError as error:
        # SPDK's module says no more than this, whatever the reason.
        reason = RpcError.from_os_error(error, INTERNAL_ERROR)
        raise RpcError(
            INTERNAL_ERROR,
            "Unable to create URING bdev.",
            detail=reason.detail,
            number=reason.number,
        ) from error


@method("bdev_malloc_create", failure_code=ERRNO_CODE)
def malloc_create(
    target: Target,
    *,
    num_blocks: U64,
    block_size: U32,
    name: str | None = None,
    uuid: str | None = None,
    physical_block_size: U32 = 0,  # noqa: ARG001
    optimal_io_boundary: U32 = 0,  # noqa: ARG001
    md_size: U32 = 0,
    md_interleave: bool = False,  # noqa: ARG001
    dif_type: U32 = 0,
    dif_is_head_of_md: bool = False,  # noqa: ARG001
    dif_pi_format: U32 = 0,  # noqa: ARG001
    numa_id: int | None = None,  # noqa: ARG001
) -> str:
    """Blocks have no metadata, so there is no protection information either."""
    if md_size or dif_type:
        raise OSError(errno.EINVAL, "blocks have no metadata here: md_size and dif_type must be 0")
    name = name or target.bdevs.free_name("Malloc")
    return _add(target, of_memory(name, num_blocks, block_size, uuid))


@method(
    "bdev_examine",
    failure_code=ERRNO_CODE,
    takes_long=True,
    decode_error=(INVALID_PARAMS, "spdk_json_decode_object failed"),
)
def bdev_examine(target: Target, *, name: str) -> bool:
    with target.changing:
        bdev = target.find_bdev(name)
        if target.store_on(bdev) is None:
            examine(target, bdev)
    return True


@method("bdev_wait_for_examine")
def wait_for_examine(target: Target) -> bool:
    # A device is examined before the call that makes it is answered, but it may be going on.
    with target.changing:
        return True


@method("bdev_set_options", decode_error=(INVALID_PARAMS, "Invalid parameters"))
def set_options(
    target: Target,
    *,
    bdev_io_pool_size: U32 | None = None,  # noqa: ARG001
    bdev_io_cache_size: U32 | None = None,  # noqa: ARG001
    bdev_auto_examine: bool | None = None,
    iobuf_small_cache_size: U32 | None = None,  # noqa: ARG001
    iobuf_large_cache_size: U32 | None = None,  # noqa: ARG001
) -> bool:
    """There are no pools to size; whether new devices are examined is obeyed."""
    if bdev_auto_examine is not None:
        target.bdevs.auto_examine = bdev_auto_examine
    return True


# -- changing and going


def _find(target: Target, name: str, kind: Kind) -> BaseBdev:
    bdev = target.find_bdev(name)
    if bdev.kind != kind:
        raise RpcError.no_such_device(f"bdev {name!r} is no {kind} bdev")
    return bdev


def _delete(target: Target, name: str, kind: Kind) -> bool:
    """As when a disk is pulled: its store is closed, clones of it are degraded."""
    with target.changing:
        bdev = _find(target, name, kind)
        if claim_of(target, bdev) == READ_MANY_WRITE_ONE:
            raise OSError(errno.EBUSY, f"bdev '{bdev.name}' is being copied to")
        store = target.store_on(bdev)
        if store is not None:
            target.close_store(store)
        for other in target.stores:
            external_left(other, bdev.uuid)
        target.bdevs.remove(bdev)
    return True


@method("bdev_aio_delete", failure_code=ERRNO_CODE, takes_long=True)
def aio_delete(target: Target, *, name: str) -> bool:
    return _delete(target, name, "aio")


@method("bdev_uring_delete", failure_code=ERRNO_CODE, takes_long=True)
def uring_delete(target: Target, *, name: str) -> bool:
    return _delete(target, name, "uring")


@method("bdev_malloc_delete", failure_code=ERRNO_CODE, takes_long=True)
def malloc_delete(target: Target, *, name: str) -> bool:
    return _delete(target, name, "malloc")


@method("bdev_aio_rescan", failure_code=ERRNO_CODE)
def aio_rescan(target: Target, *, name: str) -> bool:
    _find(target, name, "aio").rescan()
    return True


@method("bdev_uring_rescan", failure_code=ERRNO_CODE)
def uring_rescan(target: Target, *, name: str) -> bool:
    _find(target, name, "uring").rescan()
    return True


# -- telling


def named_bdev(target: Target, name: str) -> BaseBdev | Lvol | None:
    return target.bdevs.find(name) or target.try_lvol(name)


def all_bdevs(target: Target) -> list[BaseBdev | Lvol]:
    found: list[BaseBdev | Lvol] = []
    for bdev in target.bdevs.list():
        found.append(bdev)
        store = target.store_on(bdev)
        if store is not None:
            found += by_creation(store.lvols)
    return found


def _document(target: Target, found: BaseBdev | Lvol) -> dict[str, Any]:
    if isinstance(found, BaseBdev):
        return base_bdev_document(target, found)
    return lvol_bdev_document(target, found)


def _documents(target: Target) -> list[dict[str, Any]]:
    """Of all; an lvol that is deleted meanwhile is left out."""
    found = []
    for bdev in all_bdevs(target):
        if isinstance(bdev, BaseBdev):
            found.append(base_bdev_document(target, bdev))
        else:
            found += of_each([bdev], partial(lvol_bdev_document, target))
    return found


POLL = 0.05


def _all_are_asked_for(params: Any) -> bool:
    return not isinstance(params, dict) or params.get("name") is None


@method("bdev_get_bdevs", takes_long=True, is_large=_all_are_asked_for)
def get_bdevs(target: Target, *, name: str | None = None, timeout: U64 = 0) -> list[dict[str, Any]]:
    """timeout: milliseconds that a named bdev may take to appear."""
    if name is None:
        return _documents(target)
    deadline = time.monotonic() + timeout / 1000
    while (found := named_bdev(target, name)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RpcError.no_such_device(f"there is no bdev {name!r}")
        # Lvols come without telling the base devices: so look again soon in any case.
        target.bdevs.wait_changed(min(left, POLL))
    return [_document(target, found)]
