"""Copies: SPDK's shallow copy, Longhorn's range and deep copy, and lvolfs's own start."""

import errno
import os
from typing import Any

from lvolfs.bdev.nbd import is_nbd_uri
from lvolfs.delta import jobs
from lvolfs.delta.copy import shallow_copy
from lvolfs.delta.jobs import Job, registry
from lvolfs.lvstore.lvol import Lvol
from lvolfs.report import documents
from lvolfs.rpc.bdev_documents import claim_of
from lvolfs.rpc.checksum_methods import ClusterRuns, cluster_ranges
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.table import U32, U64, method, own_method
from lvolfs.rpc.target import Target


def _start(
    target: Target, source: str, destination: str, clusters: list[int] | None, *, deep: bool
) -> dict[str, int]:
    """SPDK accepts what it then refuses; only a destination that cannot be had fails here."""
    lvol = target.find_lvol(source)
    total = lvol.num_allocated_clusters if clusters is None else len(clusters)
    try:
        opened, refused = _spdk_destination(target, lvol, destination, clusters)
        if refused is not None:
            job = Job("copy", lvol=lvol.name, lvol_uuid=lvol.uuid, destination=destination)
            registry(lvol.store).add_refused(job, refused)
        else:
            job = shallow_copy(lvol, opened, clusters, deep, refused_as_job=True)
    except OSError as error:
        jobs.next_id()  # SPDK counts what it refuses
        raise _as_spdk_refuses(error) from error
    if job.state == "error" and not job.total:
        job.total = lvol.num_clusters if deep else total
    return {"operation_id": job.id}


def _as_spdk_refuses(error: OSError) -> OSError:
    """A missing destination is "No such device", a held one "Operation not permitted"."""
    known = {errno.ENOENT: errno.ENODEV, errno.EBUSY: errno.EPERM}
    return OSError(known.get(error.errno or errno.EIO, error.errno), error.strerror)


def _spdk_destination(
    target: Target, source: Lvol, name: str, clusters: list[int] | None
) -> tuple[Lvol | str, OSError | None]:
    """What a name of a bdev stands for, and what SPDK would find wrong with it only later."""
    if clusters is not None and not clusters:
        raise OSError(errno.EINVAL, f"no clusters of lvol {source.name!r} are named")
    if not source.is_read_only:
        refused: OSError | None = OSError(errno.EPERM, f"lvol {source.name!r} is writable")
    else:
        refused = None
    opened = _destination(target, name)
    block_size = 1
    if isinstance(opened, Lvol):
        if opened.is_read_only:
            refused = refused or OSError(errno.EIO, f"lvol {opened.name!r} is read-only")
        block_size = opened.store.block_size
    elif (bdev := target.bdevs.find(name)) is not None:
        if claim_of(target, bdev) is not None:
            raise OSError(errno.EPERM, f"bdev {name!r} is in use")
        block_size = bdev.block_size
    elif not (name.startswith(("/", "./", "../")) or is_nbd_uri(name)):
        raise OSError(errno.ENODEV, f"there is no bdev {name!r}")
    if source.store.block_size % block_size:
        refused = refused or OSError(
            errno.EINVAL,
            f"{name!r} has blocks of {block_size} bytes, lvol {source.name!r} has "
            f"{source.store.block_size}",
        )
    return opened, refused


def _destination(target: Target, name: str) -> Lvol | str:
    """An lvol of any open store, or a base device; what names none is a path or an NBD URI."""
    lvol = target.try_lvol(name)
    if lvol is not None:
        return lvol
    bdev = target.bdevs.find(name)
    return name if bdev is None else bdev.path


@method("bdev_lvol_start_shallow_copy", takes_long=True)
def start_shallow_copy(target: Target, *, src_lvol_name: str, dst_bdev_name: str) -> dict[str, int]:
    return _start(target, src_lvol_name, dst_bdev_name, None, deep=False)


@method("bdev_lvol_start_range_shallow_copy", takes_long=True)
def start_range_shallow_copy(
    target: Target, *, src_lvol_name: str, dst_bdev_name: str, clusters: list[U64]
) -> dict[str, int]:
    return _start(target, src_lvol_name, dst_bdev_name, clusters, deep=False)


@method("bdev_lvol_start_deep_copy", takes_long=True)
def start_deep_copy(target: Target, *, src_lvol_name: str, dst_bdev_name: str) -> dict[str, int]:
    return _start(target, src_lvol_name, dst_bdev_name, None, deep=True)


def _check(target: Target, operation_id: int) -> tuple[Job, dict[str, str]]:
    """The copy and its state. An end is reported once, as by SPDK: then it is forgotten."""
    for store in target.stores:
        known = registry(store)
        try:
            job = known.get(operation_id)
        except OSError:
            continue
        if job.kind != "copy":
            continue
        if not job.finished:
            return job, {"state": "in progress"}
        known.forget(operation_id)
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


@own_method("lvolfs_start_copy", takes_long=True)
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
