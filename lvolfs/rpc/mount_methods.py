"""Mounting and unmounting by the process that has a store open, and its metrics."""

import errno

from lvolfs.bdev.rights import require_own
from lvolfs.rpc.table import own_method
from lvolfs.rpc.target import Mounter, Target


def _mounter(target: Target) -> Mounter:
    if target.mounter is None:
        raise OSError(
            errno.EOPNOTSUPP,
            "this process is no daemon: run lvolfs mount, or lvolfs serve and ask that",
        )
    return target.mounter


@own_method("lvolfs_mount", takes_long=True)
def mount(
    target: Target, *, mountpoint: str, options: str = "", lvs_name: str | None = None
) -> bool:
    """Mounts an open store; answered when the mount answers. options: as `lvolfs mount -o`. A
    process can have one mount at a time."""
    require_own(f"mount point '{mountpoint}'")
    store = target.only_store(lvs_name)
    if store.path in target.mountpoints:
        raise OSError(
            errno.EBUSY,
            f"store '{store.name}' is mounted already, on {target.mountpoints[store.path]}",
        )
    _mounter(target).mount(store, mountpoint, options)
    return True


@own_method("lvolfs_unmount", takes_long=True)
def unmount(target: Target, *, mountpoint: str, lazy: bool = False) -> bool:
    """Answered when the mount is gone. The store stays open in a process of `lvolfs serve`; one
    of `lvolfs mount` closes it and ends. lazy: even though it is in use."""
    _mounter(target).unmount(mountpoint, lazy=lazy)
    return True


@own_method("lvolfs_metrics")
def metrics(target: Target, *, lvs_name: str | None = None) -> str:
    """Prometheus text: of a store, and of its mount if it has one."""
    # Whoever does not ask for metrics need not wait for these.
    from lvolfs.report.metrics import StoreCollector, metrics_text

    store = target.only_store(lvs_name)
    mounted = [] if target.mounter is None else target.mounter.collectors(store)
    return metrics_text(mounted or [StoreCollector(store)]).decode()
