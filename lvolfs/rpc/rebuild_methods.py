"""Rebuilds, between stores of this process or into one elsewhere on this machine."""

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lvolfs.bdev.rights import require_own
from lvolfs.delta.jobs import registry as jobs_of
from lvolfs.delta.rebuild import start_replica_rebuild
from lvolfs.delta.replica import LocalReplica, Replica
from lvolfs.lvstore.store import Lvstore
from lvolfs.report import documents
from lvolfs.rpc import registry
from lvolfs.rpc.checksum_methods import Algorithm
from lvolfs.rpc.client import Client
from lvolfs.rpc.remote_replica import RemoteReplica
from lvolfs.rpc.table import U64, own_method
from lvolfs.rpc.target import Target


@own_method("lvolfs_rebuild", takes_long=True)
def rebuild(
    target: Target,
    *,
    source: str,
    volume: str,
    lvs_name: str | None = None,
    path: str | None = None,
    algorithm: Algorithm = "xxh3",
    verify: bool = True,
    rate: U64 = 0,
) -> dict[str, Any]:
    """Starts making `volume` of another store the same as the lvol `source`, with all its
    snapshots; the job of the source's store, whose result is the report. The other store: one
    of this process by lvs_name, or by path one that is closed, mounted (also by its mount point)
    or served by another process."""
    lvol = target.find_lvol(source)
    if (lvs_name is None) == (path is None):
        raise OSError(errno.EINVAL, "give the destination's lvs_name or path")
    with ExitStack() as stack:
        if path is not None:
            require_own(f"path '{path}'")
            destination = _find_destination(target, path, stack)
        else:
            destination = LocalReplica(target.find_store(None, lvs_name))
        here = LocalReplica(lvol.store)
        if destination.location == here.location:
            raise OSError(
                errno.EINVAL, f"{here.title} is the source's own store; a replica needs another"
            )
        job = start_replica_rebuild(
            here,
            lvol.name,
            destination,
            volume,
            jobs=jobs_of(lvol.store),
            algorithm=algorithm,
            verify=verify,
            rate=rate,
            source_uuid=lvol.uuid,
            held=stack.pop_all(),
        )
    if isinstance(destination, LocalReplica) and destination.store in target.stores:
        jobs_of(destination.store).adopt(job)
    return documents.job_document(job)


def _find_destination(target: Target, path: str, stack: ExitStack) -> Replica:
    """The store at a path or a mount point, by whoever has it open; opened here if nobody has,
    until the stack is closed."""
    try:
        is_directory = stat.S_ISDIR(Path(path).stat().st_mode)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f"destination {path}: {os.strerror(number)}") from error
    find = registry.find_by_mountpoint if is_directory else registry.find_by_store
    entry = find(path)
    held = path if entry is None else entry.store
    for store in target.stores:
        if not store.path.startswith("/proc/") and Path(store.path).samefile(held):
            return LocalReplica(store)
    if entry is None and is_directory:
        raise OSError(errno.EINVAL, f"{path} is a directory, and no store is mounted there")
    if entry is None:
        return LocalReplica(stack.enter_context(Lvstore.open(path)))
    return RemoteReplica(stack.enter_context(Client(entry.socket)))
