"""Checksums of snapshots: Longhorn's calls, and lvolfs's with algorithm, state and ranges."""

import errno
import os
from typing import Annotated, Any, Literal

import pydantic

from lvolfs.delta import checksums
from lvolfs.delta.checksum_table import ChecksumTable
from lvolfs.delta.jobs import registry
from lvolfs.lvstore.lvol import Lvol
from lvolfs.report import documents
from lvolfs.rpc.errors import INTERNAL_ERROR, RpcError
from lvolfs.rpc.table import U64, method, own_method
from lvolfs.rpc.target import Target

Algorithm = Literal["xxh3", "crc64"]
ClusterRuns = list[Annotated[list[U64], pydantic.Field(min_length=2, max_length=2)]]
"""[first, count] pairs."""

MAX_PAGE = 65536
"""Most clusters that one reply lists."""


def cluster_ranges(runs: ClusterRuns | None) -> list[range] | None:
    return None if runs is None else [range(first, first + count) for first, count in runs]


# -- Longhorn's: crc64, all clusters, answered when the hashing is done


def _register_all(target: Target, name: str) -> bool:
    job = checksums.register(target.find_lvol(name), algorithm="crc64")
    job.wait()
    if job.state == "cancelled":
        raise OSError(errno.EINTR, f"the checksum registration of lvol {name!r} was stopped")
    job.raise_if_failed()
    return True


@method("bdev_lvol_register_snapshot_checksum", failure_code=INTERNAL_ERROR, takes_long=True)
def register_snapshot_checksum(target: Target, *, name: str) -> bool:
    return _register_all(target, name)


@method("bdev_lvol_register_snapshot_range_checksums", failure_code=INTERNAL_ERROR, takes_long=True)
def register_snapshot_range_checksums(target: Target, *, name: str) -> bool:
    return _register_all(target, name)


@method("bdev_lvol_get_snapshot_checksum")
def get_snapshot_checksum(target: Target, *, name: str) -> dict[str, int]:
    lvol = target.find_lvol(name)
    table = checksums.table(lvol, "crc64")
    if table is None or table.snapshot_checksum is None:
        raise RpcError.no_such_device(f"no crc64 checksum of lvol {lvol.name!r} is registered")
    return {"checksum": table.snapshot_checksum}


@method("bdev_lvol_stop_snapshot_checksum")
def stop_snapshot_checksum(target: Target, *, name: str) -> bool:
    lvol = target.find_lvol(name)
    try:
        checksums.stop(lvol)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
        # SPDK answers ESRCH's code with ENODEV's text.
        raise RpcError(
            -errno.ESRCH,
            os.strerror(errno.ENODEV),
            detail=f"no checksum registration of lvol {lvol.name!r} is under way",
            number=errno.ESRCH,
        ) from error
    return True


@method("bdev_lvol_get_snapshot_range_checksums")
def get_snapshot_range_checksums(
    target: Target, *, name: str, cluster_start_index: U64, cluster_count: U64
) -> list[dict[str, int]]:
    lvol = target.find_lvol(name)
    table = checksums.table(lvol, "crc64")
    if table is None or not table.complete:
        raise OSError(
            errno.ENOENT, f"no per-cluster crc64 checksums of lvol {lvol.name!r} are registered"
        )
    end = cluster_start_index + cluster_count
    if cluster_start_index >= lvol.num_clusters or end > lvol.num_clusters:
        raise OSError(
            errno.EINVAL,
            f"clusters {cluster_start_index}-{end - 1} of lvol {lvol.name!r}: "
            f"it has {lvol.num_clusters}",
        )
    return [
        {"cluster_index": cluster, "checksum": table.checksum(cluster) or 0}
        for cluster in range(cluster_start_index, end)
    ]


# -- lvolfs's


@own_method("lvolfs_register_checksums")
def register_checksums(
    target: Target,
    *,
    name: str,
    clusters: ClusterRuns | None = None,
    algorithm: Algorithm = "xxh3",
    rate: U64 = 0,
) -> dict[str, Any]:
    """Starts a registration; the job. rate: bytes per second, 0 = no limit."""
    lvol = target.find_lvol(name)
    job = checksums.register(lvol, cluster_ranges(clusters), algorithm, rate=rate)
    return documents.job_document(job)


@own_method("lvolfs_stop_checksums")
def stop_checksums(target: Target, *, name: str) -> bool:
    checksums.stop(target.find_lvol(name))
    return True


@own_method("lvolfs_get_checksums")
def get_checksums(
    target: Target,
    *,
    name: str,
    first: U64 = 0,
    count: Annotated[int, pydantic.Field(ge=0, le=MAX_PAGE)] = MAX_PAGE,
    algorithm: Algorithm | None = None,
) -> dict[str, Any]:
    """What is registered, and `count` clusters of it from `first` on."""
    lvol = target.find_lvol(name)
    table = checksums.table(lvol, algorithm)
    listed = []
    if table is not None:
        listed = [
            {
                "index": cluster,
                "state": table.state(cluster),
                "checksum": documents.hex_checksum(table.checksum(cluster)),
            }
            for cluster in range(first, min(first + count, table.num_clusters))
        ]
    return {
        "name": lvol.name,
        "algorithm": table.algorithm if table is not None else None,
        "state": registration_state(lvol, table),
        "checksum": documents.hex_checksum(table.snapshot_checksum) if table is not None else None,
        "num_clusters": lvol.num_clusters,
        "clusters": listed,
    }


def registration_state(lvol: Lvol, table: ChecksumTable | None) -> str:
    if registry(lvol.store).active("checksum", lvol.uuid) is not None:
        return "in progress"
    if table is None:
        return "none"
    return "complete" if table.complete else "partial"


@own_method("lvolfs_verify_checksums")
def verify_checksums(
    target: Target,
    *,
    name: str,
    clusters: ClusterRuns | None = None,
    algorithm: Algorithm | None = None,
    rate: U64 = 0,
) -> dict[str, Any]:
    """Starts reading registered clusters again; the job."""
    lvol = target.find_lvol(name)
    job = checksums.verify(lvol, algorithm, cluster_ranges(clusters), rate=rate)
    return documents.job_document(job)
