"""Stores: SPDK's bdev_lvol_*_lvstore* and what lvolfs tells beyond it."""

import errno
import os
from typing import Any

from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import documents
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.table import METHODS, method, own_method
from lvolfs.rpc.target import Target


@method("rpc_get_methods")
def get_methods(
    target: Target,  # noqa: ARG001
    *,
    current: bool = False,  # noqa: ARG001
    include_aliases: bool = True,  # noqa: ARG001
) -> list[str]:
    return sorted(METHODS)


def _describe(store: Lvstore) -> dict[str, Any]:
    return {
        "uuid": store.uuid,
        "name": store.name,
        "base_bdev": store.path,
        "total_data_clusters": store.total_clusters,
        "free_clusters": store.free_clusters,
        "block_size": store.block_size,
        "cluster_size": store.cluster_size,
    }


@method("bdev_lvol_get_lvstores")
def get_lvstores(
    target: Target, *, uuid: str | None = None, lvs_name: str | None = None
) -> list[dict[str, Any]]:
    if uuid is None and lvs_name is None:
        return [_describe(store) for store in target.stores]
    return [_describe(target.find_store(uuid, lvs_name))]


@method("bdev_lvol_rename_lvstore")
def rename_lvstore(target: Target, *, old_name: str, new_name: str) -> bool:
    names = {store.name: store for store in target.stores}
    if old_name not in names:
        raise RpcError(-errno.ENOENT, f"Lvol store {old_name} not found", number=errno.ENOENT)
    if new_name in names and new_name != old_name:
        raise OSError(errno.EEXIST, f"a store named {new_name!r} is open already")
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


@own_method("lvolfs_get_cluster_map", takes_long=True)
def get_cluster_map(target: Target, *, lvs_name: str | None = None) -> dict[str, Any]:
    """Who owns which cluster of the device, as runs."""
    return documents.cluster_map_document(target.only_store(lvs_name))


@own_method("lvolfs_flush", takes_long=True)
def flush(target: Target, *, lvs_name: str | None = None) -> bool:
    target.only_store(lvs_name).flush()
    return True
