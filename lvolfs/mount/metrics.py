"""Prometheus metrics of a mount, read from native counters when somebody asks."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lvolfs.delta import jobs
from lvolfs.lvstore.store import Lvstore

if TYPE_CHECKING:
    from lvolfs._native.lane import Lane

# Opcodes of the FUSE protocol that a mount sees.
OPERATIONS = {
    1: "lookup",
    2: "forget",
    3: "getattr",
    4: "setattr",
    5: "readlink",
    6: "symlink",
    8: "mknod",
    9: "mkdir",
    10: "unlink",
    11: "rmdir",
    12: "rename",
    13: "link",
    14: "open",
    15: "read",
    16: "write",
    17: "statfs",
    18: "release",
    20: "fsync",
    21: "setxattr",
    22: "getxattr",
    23: "listxattr",
    24: "removexattr",
    25: "flush",
    26: "init",
    27: "opendir",
    28: "readdir",
    29: "releasedir",
    30: "fsyncdir",
    34: "access",
    35: "create",
    36: "interrupt",
    37: "bmap",
    38: "destroy",
    39: "ioctl",
    40: "poll",
    42: "batch_forget",
    43: "fallocate",
    44: "readdirplus",
    45: "rename2",
    46: "lseek",
    47: "copy_file_range",
    50: "syncfs",
    51: "tmpfile",
    52: "statx",
    53: "copy_file_range_64",
}


class MountCollector(Collector):
    """Counters of the lane, clusters of the store, jobs."""

    def __init__(self, store: Lvstore, lane: "Lane") -> None:
        self._store = store
        self._lane = lane

    def collect(self) -> Iterable[Metric]:
        counters = self._lane.counters()
        for name, text, values in (
            ("lvolfs_requests", "FUSE requests", counters["requests"]),
            ("lvolfs_request_errors", "Requests that the lane failed", counters["errors"]),
        ):
            family = CounterMetricFamily(name, text, labels=["op"])
            for opcode, count in sorted(values.items()):
                family.add_metric([OPERATIONS.get(opcode, str(opcode))], count)
            yield family
        yield CounterMetricFamily(
            "lvolfs_read_bytes", "Bytes read from volumes", value=counters["bytes_read"]
        )
        yield CounterMetricFamily(
            "lvolfs_written_bytes", "Bytes written to volumes", value=counters["bytes_written"]
        )
        yield GaugeMetricFamily(
            "lvolfs_open_handles", "Open volume and snapshot files", value=self._lane.open_handles
        )
        clusters = GaugeMetricFamily(
            "lvolfs_store_clusters", "Clusters of the store by state", labels=["state"]
        )
        free = self._store.free_clusters
        clusters.add_metric(["free"], free)
        clusters.add_metric(["used"], self._store.total_clusters - free)
        yield clusters
        yield GaugeMetricFamily(
            "lvolfs_store_cluster_size_bytes", "Cluster size", value=self._store.cluster_size
        )
        lvols = GaugeMetricFamily("lvolfs_store_lvols", "Lvols by type", labels=["type"])
        lvols.add_metric(["volume"], len(self._store.volumes))
        lvols.add_metric(["snapshot"], len(self._store.snapshots))
        lvols.add_metric(["damaged"], len(self._store.damaged))
        yield lvols
        active = GaugeMetricFamily(
            "lvolfs_jobs", "Jobs by kind and state", labels=["kind", "state"]
        )
        counts: dict[tuple[str, str], int] = {}
        for job in jobs.registry(self._store).list():
            counts[job.kind, job.state] = counts.get((job.kind, job.state), 0) + 1
        for (kind, state), count in sorted(counts.items()):
            active.add_metric([kind, state], count)
        yield active


class Metrics:
    """A registry of its own, so that several stores of a process keep apart."""

    def __init__(self, store: Lvstore, lane: "Lane") -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(MountCollector(store, lane))

    def text(self) -> bytes:
        return generate_latest(self._registry)
