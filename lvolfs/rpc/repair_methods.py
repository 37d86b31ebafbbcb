"""What a scrub found, put right from another copy."""

import errno
import os
import stat
from typing import Any

from lvolfs._native.endpoint import Endpoint
from lvolfs.bdev.rights import as_client
from lvolfs.delta.repair import repair
from lvolfs.report import documents
from lvolfs.rpc.checksum_methods import ClusterRuns, cluster_ranges
from lvolfs.rpc.table import own_method
from lvolfs.rpc.target import Target

MAX_CLUSTERS = 1024
"""Most clusters of one call; the store's lock is held while they are written."""


@own_method("lvolfs_repair_clusters", takes_long=True)
def repair_clusters(
    target: Target, *, name: str, clusters: ClusterRuns, source: str
) -> dict[str, Any]:
    """Writes clusters of a snapshot from the regular file `source`, which has just them, one
    after the other. What has another checksum than the registered one is refused."""
    lvol = target.find_lvol(name)
    if not os.path.isabs(source):  # noqa: PTH117
        # The daemon has a working directory of its own.
        raise OSError(errno.EINVAL, f"source {source!r} is not an absolute path")
    count = sum(number for _, number in clusters)
    if count > MAX_CLUSTERS:
        raise OSError(errno.EINVAL, f"{count} clusters: at most {MAX_CLUSTERS} at a time")
    wanted = [cluster for run in cluster_ranges(clusters) or [] for cluster in run]
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = as_client(os.open, source, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"{source} is not a regular file")
        size = len(wanted) * lvol.store.cluster_size
        if status.st_size != size:
            raise OSError(errno.EINVAL, f"{source} has {status.st_size} bytes instead of {size}")
        endpoint = Endpoint.of_file(descriptor, size, source)
    finally:
        os.close(descriptor)
    try:
        report = repair(lvol, wanted, endpoint)
    finally:
        endpoint.close()
    return {
        "name": lvol.name,
        "repaired": documents.join_clusters(report.repaired),
        "refused": documents.join_clusters(report.refused),
    }
