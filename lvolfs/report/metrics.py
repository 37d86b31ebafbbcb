"""Prometheus metrics of a store, read from native counters when somebody asks."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lvolfs.delta import jobs
from lvolfs.lvstore.store import Lvstore


class StoreCollector(Collector):
    """Clusters, lvols, device traffic and jobs of an open store."""

    def __init__(self, store: Lvstore) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        store = self._store
        clusters = GaugeMetricFamily(
            "lvolfs_store_clusters", "Clusters of the store by state", labels=["state"]
        )
        free = store.free_clusters
        clusters.add_metric(["free"], free)
        clusters.add_metric(["used"], store.total_clusters - free)
        yield clusters
        yield GaugeMetricFamily(
            "lvolfs_store_cluster_size_bytes", "Cluster size", value=store.cluster_size
        )
        lvols = GaugeMetricFamily("lvolfs_store_lvols", "Lvols by type", labels=["type"])
        lvols.add_metric(["volume"], len(store.volumes))
        lvols.add_metric(["snapshot"], len(store.snapshots))
        lvols.add_metric(["damaged"], len(store.damaged))
        yield lvols
        counters = store.engine.device.counters
        for name, text in (
            ("bytes_read", "Bytes read from the store's device"),
            ("bytes_written", "Bytes written to the store's device"),
            ("flushes", "Flushes of the store's device"),
        ):
            yield CounterMetricFamily(f"lvolfs_device_{name}", text, value=counters[name])
        active = GaugeMetricFamily(
            "lvolfs_jobs", "Jobs by kind and state", labels=["kind", "state"]
        )
        counts: dict[tuple[str, str], int] = {}
        for job in jobs.registry(store).list():
            counts[job.kind, job.state] = counts.get((job.kind, job.state), 0) + 1
        for (kind, state), count in sorted(counts.items()):
            active.add_metric([kind, state], count)
        yield active


def metrics_text(collectors: Iterable[Collector]) -> bytes:
    """Of one store; several stores of a process keep apart."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)
