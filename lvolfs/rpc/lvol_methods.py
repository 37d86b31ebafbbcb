"""The life of lvols: SPDK's bdev_lvol_* with its parameters, results and error codes."""

import base64
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import pydantic

from lvolfs.bdev.rights import require_own
from lvolfs.delta.jobs import Job, registry
from lvolfs.lvstore.external import Source
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.names import NAME_MAX
from lvolfs.lvstore.store import Lvstore
from lvolfs.report import documents
from lvolfs.rpc.bdev_documents import by_creation
from lvolfs.rpc.bdev_methods import named_bdev
from lvolfs.rpc.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from lvolfs.rpc.table import U64, always_large, method, own_method
from lvolfs.rpc.target import Target

MIB = 1 << 20
SizeInMib = Annotated[int, pydantic.Field(ge=0, lt=1 << 43)]


def _check_name(name: str) -> None:
    """SPDK answers a name that cannot be with the bare errno, before it starts anything."""
    if not name or len(name.encode()) > NAME_MAX:
        raise RpcError(
            -errno.EINVAL,
            os.strerror(errno.EINVAL),
            detail=f"lvol name {name!r}: 1 to {NAME_MAX} bytes are allowed",
            number=errno.EINVAL,
        )


@method("bdev_lvol_get_lvols", needs_a_member=True)
def get_lvols(
    target: Target, *, lvs_uuid: str | None = None, lvs_name: str | None = None
) -> list[dict[str, Any]]:
    if lvs_uuid is None and lvs_name is None:
        stores = target.stores
    else:
        stores = [target.find_store(lvs_uuid, lvs_name)]
    return [
        {
            "alias": f"{store.name}/{lvol.name}",
            "uuid": lvol.uuid,
            "name": lvol.name,
            "creation_time": lvol.creation_time,
            "is_thin_provisioned": lvol.is_thin,
            "is_snapshot": lvol.is_snapshot,
            "is_clone": lvol.is_clone,
            "is_esnap_clone": lvol.is_external_clone,
            "is_degraded": lvol.degraded,
            "lvs": {"name": store.name, "uuid": store.uuid},
        }
        for store in stores
        for lvol in by_creation(store.lvols)
    ]


@own_method("lvolfs_get_lvols")
def get_lvol_documents(target: Target, *, lvs_name: str | None = None) -> list[dict[str, Any]]:
    return documents.of_each(target.only_store(lvs_name).lvols, documents.lvol_document)


@own_method("lvolfs_get_lvol")
def get_lvol_document(target: Target, *, name: str) -> dict[str, Any]:
    return documents.lvol_document(target.find_lvol(name))


@method("bdev_lvol_create", takes_long=True)
def create(
    target: Target,
    *,
    lvol_name: str,
    size_in_mib: SizeInMib,
    thin_provision: bool = False,
    uuid: str | None = None,
    lvs_name: str | None = None,
    clear_method: str | None = None,
) -> str:
    if clear_method not in (None, "none", "unmap", "write_zeroes"):
        raise RpcError(
            -errno.EINVAL,
            "Invalid clean_method option",
            detail=f"clear_method {clear_method!r}: none, unmap or write_zeroes",
            number=errno.EINVAL,
        )
    store = target.find_store(uuid, lvs_name)
    return _create(store, lvol_name, size=size_in_mib * MIB, thick=not thin_provision)


@own_method("lvolfs_create_volume", takes_long=True)
def create_volume(
    target: Target, *, name: str, size: U64, thick: bool = False, lvs_name: str | None = None
) -> str:
    """As bdev_lvol_create, with the size in bytes (rounded up to clusters)."""
    return _create(target.only_store(lvs_name), name, size=size, thick=thick)


def _create(store: Lvstore, name: str, *, size: int, thick: bool) -> str:
    _check_name(name)
    try:
        return store.create_volume(name, size, thick=thick).uuid
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.EINVAL):
            raise RpcError.from_os_error(error, -error.errno) from error
        raise


@method("bdev_lvol_snapshot")
def snapshot(
    target: Target,
    *,
    lvol_name: str,
    snapshot_name: str,
    xattrs: dict[str, str] | None = None,
) -> str:
    lvol = target.find_lvol(lvol_name)
    if lvol.is_read_only:
        raise OSError(errno.EINVAL, f"lvol {lvol_name!r} is read-only: make a clone of it instead")
    values = {name: value.encode() for name, value in (xattrs or {}).items()}
    with _spdk_xattr_sizes():
        return lvol.snapshot(snapshot_name, xattrs=values).uuid


@method("bdev_lvol_clone")
def clone(target: Target, *, snapshot_name: str, clone_name: str) -> str:
    return target.find_lvol(snapshot_name).clone(clone_name).uuid


@method("bdev_lvol_clone_bdev")
def clone_bdev(target: Target, *, bdev: str, lvs_name: str, clone_name: str) -> str:
    """A clone of a base device, or of a read-only lvol of another store; the store keeps its
    uuid."""
    store = next((store for store in target.stores if store.name == lvs_name), None)
    if store is None:
        raise RpcError(
            INVALID_PARAMS, "lvs does not exist", detail=f"there is no store {lvs_name!r}"
        )
    with target.changing:
        snapshot_id, source = _external_bdev(target, bdev, store)
        return store.create_external_clone(clone_name, source, snapshot_id=snapshot_id).uuid


def _external_bdev(target: Target, name: str, store: Lvstore) -> tuple[str, Source]:
    """(id, what it is) of the bdev of that name, to be read as an external snapshot."""
    found = target.bdevs.find(name)
    if found is not None:
        if target.store_on(found) is not None:
            raise OSError(errno.EPERM, f"bdev {name!r} holds a store")
        return found.uuid, found.path
    lvol = target.try_lvol(name)
    if lvol is None:
        raise RpcError(INVALID_PARAMS, "bdev does not exist", detail=f"there is no bdev {name!r}")
    if lvol.store is store:
        raise RpcError(
            INVALID_PARAMS,
            "bdev is an lvol in same lvs as clone; use bdev_lvol_clone instead",
            number=errno.EINVAL,
        )
    return lvol.uuid, lvol


@own_method("lvolfs_create_external_clone")
def create_external_clone(
    target: Target,
    *,
    name: str,
    path: str,
    snapshot_id: str | None = None,
    lvs_name: str | None = None,
) -> str:
    """A clone of a file or block device outside of the store."""
    require_own(f"path '{path}'")
    store = target.only_store(lvs_name)
    return store.create_external_clone(name, path, snapshot_id=snapshot_id).uuid


@method("bdev_lvol_rename")
def rename(target: Target, *, old_name: str, new_name: str) -> bool:
    target.find_lvol(old_name).rename(new_name)
    return True


@method("bdev_lvol_resize", takes_long=True)
def resize(target: Target, *, name: str, size_in_mib: SizeInMib) -> bool:
    target.find_lvol(name).resize(size_in_mib * MIB)
    return True


@own_method("lvolfs_resize", takes_long=True)
def resize_bytes(target: Target, *, name: str, size: U64) -> bool:
    """As bdev_lvol_resize, with the size in bytes (rounded up to clusters)."""
    target.find_lvol(name).resize(size)
    return True


@method("bdev_lvol_set_read_only")
def set_read_only(target: Target, *, name: str | None = None) -> bool:
    if name is None:
        raise RpcError(
            -errno.EINVAL, "Missing name parameter", detail="give name", number=errno.EINVAL
        )
    target.find_lvol(name).set_read_only()
    return True


@method("bdev_lvol_delete", failure_code=INTERNAL_ERROR)
def delete(target: Target, *, name: str) -> bool:
    lvol = target.find_lvol(name)
    try:
        lvol.delete()
    except OSError as error:
        if error.errno == errno.EBUSY and len(lvol.children) > 1:
            raise OSError(errno.EPERM, error.strerror) from error  # as SPDK says it
        raise
    return True


@method("bdev_lvol_inflate", takes_long=True)
def inflate(target: Target, *, name: str) -> bool:
    target.find_lvol(name).inflate()
    return True


@method("bdev_lvol_decouple_parent", takes_long=True)
def decouple_parent(target: Target, *, name: str) -> bool:
    target.find_lvol(name).decouple()
    return True


def _start_filling(lvol: Lvol, kind: Literal["inflate", "decouple"]) -> dict[str, Any]:
    """inflate() or decouple() as a job: it tells how far it is, and can be cancelled."""
    job = Job(kind, lvol=lvol.name, lvol_uuid=lvol.uuid, destination=None)

    def progress(done: int, total: int) -> None:
        job.skipped, job.total = done, total

    def work(job: Job) -> None:
        fill = lvol.inflate if kind == "inflate" else lvol.decouple
        fill(progress, lambda: job.control.cancelled)

    return documents.job_document(registry(lvol.store).start(job, work))


@own_method("lvolfs_start_inflate")
def start_inflate(target: Target, *, name: str) -> dict[str, Any]:
    return _start_filling(target.find_lvol(name), "inflate")


@own_method("lvolfs_start_decouple")
def start_decouple(target: Target, *, name: str) -> dict[str, Any]:
    return _start_filling(target.find_lvol(name), "decouple")


@method("bdev_lvol_detach_parent")
def detach_parent(target: Target, *, name: str) -> bool:
    target.find_lvol(name).detach()
    return True


@method("bdev_lvol_set_parent")
def set_parent(target: Target, *, lvol_name: str, parent_name: str) -> bool:
    lvol = target.find_lvol(lvol_name)
    lvol.set_parent(target.find_lvol(parent_name))
    return True


@method("bdev_lvol_set_parent_bdev")
def set_parent_bdev(target: Target, *, lvol_name: str, parent_name: str) -> bool:
    lvol = target.find_lvol(lvol_name)
    if named_bdev(target, parent_name) is None:
        raise RpcError.no_such_device(f"there is no bdev {parent_name!r}")
    with target.changing:
        snapshot_id, source = _external_bdev(target, parent_name, lvol.store)
        lvol.set_external_parent(source, snapshot_id=snapshot_id)
    return True


@own_method("lvolfs_set_external_parent")
def set_external_parent(
    target: Target, *, name: str, path: str, snapshot_id: str | None = None
) -> bool:
    require_own(f"path '{path}'")
    target.find_lvol(name).set_external_parent(path, snapshot_id=snapshot_id)
    return True


@method("bdev_lvol_set_xattr")
def set_xattr(target: Target, *, name: str, xattr_name: str, xattr_value: str) -> bool:
    lvol = target.find_lvol(name)
    if lvol.is_read_only:
        raise OSError(errno.EPERM, f"lvol {name!r} is read-only; its xattrs cannot be changed")
    with _spdk_xattr_sizes():
        lvol.set_xattr(xattr_name, xattr_value.encode())
    return True


@contextmanager
def _spdk_xattr_sizes() -> Iterator[None]:
    """SPDK says that it lacks memory when a value does not fit a metadata page."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise OSError(errno.ENOMEM, error.strerror) from error
        raise


@method("bdev_lvol_get_xattr")
def get_xattr(target: Target, *, name: str, xattr_name: str) -> str:
    lvol = target.find_lvol(name)
    try:
        value = _xattr(lvol, xattr_name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOENT):
            raise
        # Longhorn's client tells a missing xattr by exactly this code and message.
        raise RpcError(
            INTERNAL_ERROR,
            os.strerror(errno.ENOENT),
            detail=f"lvol {lvol.name!r} has no xattr {xattr_name!r}",
            number=errno.ENOENT,
        ) from error
    return value.split(b"\0", 1)[0].decode(errors="replace")


def _xattr(lvol: Lvol, name: str) -> bytes:
    implicit = {"name": lvol.name, "uuid": lvol.uuid, "creation_time": lvol.creation_time}
    if name in implicit:
        return implicit[name].encode()
    return lvol.get_xattr(name)


@method("bdev_lvol_get_fragmap")
def get_fragmap(target: Target, *, name: str, offset: U64 = 0, size: U64 = 0) -> dict[str, Any]:
    lvol = target.find_lvol(name)
    cluster_size = lvol.store.cluster_size
    size = size or lvol.size - offset
    if offset % cluster_size or size % cluster_size or size < 0 or offset + size > lvol.size:
        raise OSError(
            errno.EINVAL,
            f"lvol {lvol.name!r}: offset {offset}, size {size}: multiples of {cluster_size} "
            f"within its {lvol.size} bytes are allowed",
        )
    count = size // cluster_size
    fragmap = lvol.fragmap(offset // cluster_size, count)
    return {
        "cluster_size": cluster_size,
        "num_clusters": count,
        "num_allocated_clusters": sum(byte.bit_count() for byte in fragmap),
        "fragmap": base64.b64encode(fragmap).decode("ascii"),
    }


@own_method("lvolfs_get_xattrs")
def get_xattrs(
    target: Target, *, name: str, encoding: Literal["utf-8", "base64"] = "utf-8"
) -> dict[str, str]:
    """Every user-visible xattr; base64 carries any bytes."""
    lvol = target.find_lvol(name)
    values = {key: lvol.get_xattr(key) for key in lvol.list_xattrs()}
    if encoding == "base64":
        return {key: base64.b64encode(value).decode() for key, value in values.items()}
    return {key: value.decode(errors="replace") for key, value in values.items()}


@own_method("lvolfs_get_lvol_map", takes_long=True, is_large=always_large)
def get_lvol_map(target: Target, *, name: str) -> dict[str, Any]:
    """Where each cluster is read from: the lvol itself, an ancestor, nowhere."""
    return documents.lvol_map_document(target.find_lvol(name))
