"""Stores: SPDK's bdev_lvol_*_lvstore* and what lvolfs tells beyond it."""

import errno
import os
from typing import Any

from lvolfs._native.device import Device
from lvolfs.lvstore.names import NAME_MAX
from lvolfs.lvstore.store import Lvstore
from lvolfs.report import documents
from lvolfs.rpc.bdev_documents import claim_of
from lvolfs.rpc.errors import INVALID_PARAMS, RpcError
from lvolfs.rpc.table import U32, always_large, method, own_method
from lvolfs.rpc.target import Target

DEFAULT_CLUSTER_SIZE = 4 << 20
PAGE = 4096
MAX_MD_PAGE = 65536


def _refused(number: int, detail: str, *, code: int | None = None, message: str = "") -> RpcError:
    """An error as SPDK answers it before it starts anything: the negative errno."""
    return RpcError(
        -number if code is None else code,
        message or os.strerror(number),
        detail=detail,
        number=number,
    )


def _describe(target: Target, store: Lvstore) -> dict[str, Any]:
    return {
        "uuid": store.uuid,
        "name": store.name,
        "base_bdev": target.base_bdev_of(store),
        "total_data_clusters": store.total_clusters,
        "free_clusters": store.free_clusters,
        "block_size": store.block_size,
        "cluster_size": store.cluster_size,
    }


@method("bdev_lvol_create_lvstore", takes_long=True)
def create_lvstore(
    target: Target,
    *,
    bdev_name: str,
    lvs_name: str,
    cluster_sz: U32 = 0,
    clear_method: str = "unmap",
    num_md_pages_per_cluster_ratio: U32 = 100,
    md_page_size: U32 = 0,
) -> str:
    """num_md_pages_per_cluster_ratio: metadata pages per 100 clusters. md_page_size: 4096 (also
    for 0) to 65536, a power of two."""
    if clear_method not in ("none", "unmap", "write_zeroes"):
        raise _refused(
            errno.EINVAL,
            f"clear_method {clear_method!r}: none, unmap or write_zeroes",
            message="Invalid clear_method parameter",
        )
    with target.changing:
        bdev = target.find_bdev(bdev_name)
        cluster_size = cluster_sz or DEFAULT_CLUSTER_SIZE
        if cluster_size < bdev.block_size:
            raise _refused(errno.EINVAL, f"clusters are smaller than blocks of {bdev.block_size}")
        if not 1 <= len(lvs_name.encode()) <= NAME_MAX:
            raise _refused(errno.EINVAL, f"a store's name has 1 to {NAME_MAX} bytes")
        if md_page_size and (
            md_page_size & (md_page_size - 1) or not PAGE <= md_page_size <= MAX_MD_PAGE
        ):
            raise _refused(
                errno.EINVAL,
                f"metadata pages of {md_page_size} bytes: a power of two from {PAGE} to "
                f"{MAX_MD_PAGE} is needed",
            )
        claim = claim_of(target, bdev)
        if claim is not None:
            raise _refused(errno.EPERM, f"bdev {bdev_name!r} is in use: {claim}")
        if any(store.name == lvs_name for store in target.stores):
            raise _refused(errno.EEXIST, f"a store named {lvs_name!r} is open already")
        if cluster_size % PAGE or cluster_size == PAGE:
            # What SPDK answers for lack of room for its metadata in such clusters.
            raise OSError(
                errno.ENOMEM, f"cluster size {cluster_size}: a multiple of 4096, not 4096"
            )
        store = Lvstore.create(
            bdev.path,
            cluster_size=cluster_size,
            name=lvs_name,
            block_size=bdev.block_size,
            force=True,
            md_ratio=num_md_pages_per_cluster_ratio or 100,
            md_page_size=md_page_size or PAGE,
            discard=clear_method != "none",
        )
        target.add_store(store)
        return store.uuid


@method("bdev_lvol_delete_lvstore", takes_long=True)
def delete_lvstore(target: Target, *, uuid: str | None = None, lvs_name: str | None = None) -> bool:
    """With everything in it: the superblock goes, and the space behind it is given back."""
    with target.changing:
        store = target.find_store(uuid, lvs_name)
        target.close_store(store)
        with Device(store.path) as device:
            device.zero(0, PAGE)
            device.flush()
            device.zero(PAGE, device.size - PAGE)
            device.flush()
    return True


@method("bdev_lvol_get_lvstores", needs_a_member=True)
def get_lvstores(
    target: Target, *, uuid: str | None = None, lvs_name: str | None = None
) -> list[dict[str, Any]]:
    if uuid is None and lvs_name is None:
        return [_describe(target, store) for store in target.stores]
    return [_describe(target, target.find_store(uuid, lvs_name))]


@method("bdev_lvol_rename_lvstore")
def rename_lvstore(target: Target, *, old_name: str, new_name: str) -> bool:
    with target.changing:
        names = {store.name: store for store in target.stores}
        if old_name not in names:
            raise _refused(
                errno.ENOENT,
                f"there is no store {old_name!r}",
                message=f"Lvol store {old_name} not found",
            )
        if new_name in names and new_name != old_name:
            raise OSError(errno.EEXIST, f"a store named {new_name!r} is open already")
        if len(new_name.encode()) > NAME_MAX:
            raise RpcError(
                INVALID_PARAMS,
                os.strerror(errno.EINVAL),
                detail=f"a store's name has 1 to {NAME_MAX} bytes",
                number=errno.EINVAL,
            )
        names[old_name].rename(new_name)
    return True


@method("bdev_lvol_grow_lvstore")
def grow_lvstore(target: Target, *, uuid: str | None = None, lvs_name: str | None = None) -> bool:
    target.find_store(uuid, lvs_name).grow()
    return True


@own_method("lvolfs_get_store")
def get_store(target: Target, *, lvs_name: str | None = None) -> dict[str, Any]:
    store = target.only_store(lvs_name)
    mountpoint = target.mountpoints.get(store.path)
    return documents.store_document(store, mountpoint=mountpoint, pid=os.getpid())


@own_method("lvolfs_get_cluster_map", takes_long=True, is_large=always_large)
def get_cluster_map(target: Target, *, lvs_name: str | None = None) -> dict[str, Any]:
    """Who owns which cluster of the device, as runs."""
    return documents.cluster_map_document(target.only_store(lvs_name))


@own_method("lvolfs_flush", takes_long=True)
def flush(target: Target, *, lvs_name: str | None = None) -> bool:
    target.only_store(lvs_name).flush()
    return True
