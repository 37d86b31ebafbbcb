"""Copies: SPDK's shallow copy, Longhorn's range and deep copy, and lvolfs's own start."""

import errno
import os
from typing import Any

from lvolfs.delta.copy import shallow_copy
from lvolfs.delta.jobs import Job, registry
from lvolfs.lvstore.lvol import Lvol
from lvolfs.rpc import documents
from lvolfs.rpc.checksum_methods import ClusterRuns, cluster_ranges
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.table import U32, U64, method, own_method
from lvolfs.rpc.target import Target


def _start(
    target: Target, source: str, destination: str, clusters: list[int] | None, *, deep: bool
) -> dict[str, int]:
    """SPDK accepts what it then refuses; only a destination that cannot be had fails here."""
    lvol = target.find_lvol(source)
    try:
        job = shallow_copy(
            lvol, _destination(target, destination), clusters, deep, refused_as_job=True
        )
    except OSError as error:
        raise _as_spdk_refuses(error) from error
    return {"operation_id": job.id}


def _as_spdk_refuses(error: OSError) -> OSError:
    """A missing destination is "No such device", a held one "Operation not permitted"."""
    known = {errno.ENOENT: errno.ENODEV, errno.EBUSY: errno.EPERM}
    return OSError(known.get(error.errno or errno.EIO, error.errno), error.strerror)


def _destination(target: Target, name: str) -> Lvol | str:
    """An lvol of any open store; what names none is a path or an NBD URI."""
    lvol = target.try_lvol(name)
    return lvol if lvol is not None else name


@method("bdev_lvol_start_shallow_copy")
def start_shallow_copy(target: Target, *, src_lvol_name: str, dst_bdev_name: str) -> dict[str, int]:
    return _start(target, src_lvol_name, dst_bdev_name, None, deep=False)


@method("bdev_lvol_start_range_shallow_copy")
def start_range_shallow_copy(
    target: Target, *, src_lvol_name: str, dst_bdev_name: str, clusters: list[U64]
) -> dict[str, int]:
    return _start(target, src_lvol_name, dst_bdev_name, clusters, deep=False)


@method("bdev_lvol_start_deep_copy")
def start_deep_copy(target: Target, *, src_lvol_name: str, dst_bdev_name: str) -> dict[str, int]:
    return _start(target, src_lvol_name, dst_bdev_name, None, deep=True)


def _check(target: Target, operation_id: int) -> tuple[Job, dict[str, str]]:
    """The copy and its state. An end is reported once, as by SPDK: then it is forgotten."""
    for store in target.stores:
        jobs = registry(store)
        try:
            job = jobs.get(operation_id)
        except OSError:
            continue
        if job.kind != "copy":
            continue
        if not job.finished:
            return job, {"state": "in progress"}
        jobs.forget(operation_id)
        if job.state == "complete":
            return job, {"state": "complete"}
        # SPDK knows no cancelled copies; they are errors.
        return job, {"state": "error", "error": os.strerror(job.errno or errno.EIO)}
    raise RpcError.no_such_device(
        f"there is no copy operation {operation_id}, or its end was reported already"
    )


@method("bdev_lvol_check_shallow_copy")
def check_shallow_copy(target: Target, *, operation_id: U32) -> dict[str, Any]:
    job, state = _check(target, operation_id)
    return {
        "copied_clusters": job.copied,
        "unmapped_clusters": job.unmapped,
        "total_clusters": job.total,
        **state,
    }


@method("bdev_lvol_check_deep_copy")
def check_deep_copy(target: Target, *, operation_id: U32) -> dict[str, Any]:
    job, state = _check(target, operation_id)
    return {"processed_clusters": job.done, "total_clusters": job.total, **state}


@own_method("lvolfs_start_copy")
def start_copy(
    target: Target,
    *,
    source: str,
    destination: str,
    clusters: ClusterRuns | None = None,
    deep: bool = False,
    rate: U64 = 0,
) -> dict[str, Any]:
    """Starts a copy; the job. What cannot start is refused at once, with the reason."""
    lvol = target.find_lvol(source)
    job = shallow_copy(
        lvol,
        _destination(target, destination),
        cluster_ranges(clusters),
        deep,
        rate=rate,
    )
    return documents.job_document(job)
