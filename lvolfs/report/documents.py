"""Stores, lvols and jobs as JSON documents: what `--json` prints and the daemon answers.

Sizes are bytes, times ISO 8601 in UTC, checksums 16 hexadecimal digits. Names of members are
only ever added.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from lvolfs.delta import checksums
from lvolfs.delta.jobs import Job
from lvolfs.delta.rebuild_report import RebuildReport
from lvolfs.delta.store_check import CheckReport
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore


def store_document(
    store: Lvstore, *, mountpoint: str | None = None, pid: int | None = None
) -> dict[str, Any]:
    return {
        "path": store.path,
        "name": store.name,
        "uuid": store.uuid,
        "cluster_size": store.cluster_size,
        "block_size": store.block_size,
        "total_clusters": store.total_clusters,
        "free_clusters": store.free_clusters,
        "size": store.total_clusters * store.cluster_size,
        "free": store.free_clusters * store.cluster_size,
        "read_only": store.read_only,
        "num_volumes": len(store.volumes),
        "num_snapshots": len(store.snapshots),
        "damaged": [
            {"blob_id": damaged.blob_id, "name": damaged.name, "reason": damaged.reason}
            for damaged in store.damaged
        ],
        "mountpoint": mountpoint,
        "pid": pid,
    }


def lvol_document(lvol: Lvol) -> dict[str, Any]:
    with lvol.store.lock:
        return _lvol_document(lvol)


def of_each(
    lvols: Iterable[Lvol], document: Callable[[Lvol], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The documents of lvols as they are now; one that was deleted meanwhile has none."""
    found = []
    for lvol in lvols:
        # One at a time: ten thousand of them hold up nobody.
        with lvol.store.lock:
            if not lvol.deleted:
                found.append(document(lvol))
    return found


def _lvol_document(lvol: Lvol) -> dict[str, Any]:
    return {
        "name": lvol.name,
        "uuid": lvol.uuid,
        "alias": f"{lvol.store.name}/{lvol.name}",
        "type": "snapshot" if lvol.is_snapshot else "volume",
        "size": lvol.size,
        "num_clusters": lvol.num_clusters,
        "num_allocated_clusters": lvol.num_allocated_clusters,
        "thin_provision": lvol.is_thin,
        "read_only": lvol.is_read_only,
        "parent": lvol.parent.name if lvol.parent is not None else None,
        "children": sorted(child.name for child in lvol.children),
        "external_snapshot": lvol.external_id,
        "degraded": lvol.degraded,
        "creation_time": lvol.creation_time,
        "open_count": lvol.open_count,
        "writers": lvol.writers,
        "busy": lvol.busy,
        "checksum": checksum_summary(lvol),
    }


def checksum_summary(lvol: Lvol) -> dict[str, Any] | None:
    """What is registered, without the per-cluster values; None for nothing."""
    table = checksums.table(lvol)
    if table is None:
        return None
    return {
        "algorithm": table.algorithm,
        "registered": table.num_registered,
        "checksum": hex_checksum(table.snapshot_checksum),
    }


def hex_checksum(value: int | None) -> str | None:
    return None if value is None else f"{value:016x}"


def job_document(job: Job) -> dict[str, Any]:
    return {**job.as_dict(), "result": result_document(job.result)}


def result_document(result: object) -> dict[str, Any] | None:
    """What a job gave back, for the kinds that give something back."""
    if isinstance(result, checksums.VerifyReport):
        return {
            "algorithm": result.algorithm,
            "checked": result.checked,
            "unregistered": result.unregistered,
            "mismatched": join_clusters(result.mismatched),
        }
    if isinstance(result, RebuildReport):
        return result.as_dict()
    return None


def check_document(report: CheckReport) -> dict[str, Any]:
    """What a check found, and what was repaired before."""
    return {
        "store": report.store,
        "consistent": report.consistent,
        "repaired": bool(report.repairs),
        "repairs": [{"object": what, "text": text} for what, text in report.repairs],
        "findings": [asdict(finding) for finding in report.findings],
    }


def join_clusters(clusters: Iterable[int]) -> list[list[int]]:
    """[first, count] runs of ascending cluster indexes."""
    return [[first, count] for first, count, _ in runs((cluster, 0) for cluster in clusters)]


# -- cluster maps

Run = tuple[int, int, int]
"""First cluster, number of clusters, index into the document's owners (-1 = free)."""


def runs(owners: Iterable[tuple[int, int]]) -> Iterator[Run]:
    """Joins ascending (cluster, owner) pairs into runs."""
    start = count = 0
    current = -1
    for cluster, owner in owners:
        if count and owner == current and cluster == start + count:
            count += 1
            continue
        if count:
            yield start, count, current
        start, count, current = cluster, 1, owner
    if count:
        yield start, count, current


def cluster_map_document(store: Lvstore) -> dict[str, Any]:
    """Which lvol owns each cluster of the device; a cluster in no run is free."""
    engine = store.engine
    pairs = [(cluster, 0) for cluster in range(engine.metadata_clusters)]
    with store.lock:
        lvols = store.lvols
        for index, lvol in enumerate(lvols, start=1):
            pairs += ((cluster, index) for _, cluster in lvol.blob.owned())
    pairs.sort()
    return {
        "num_clusters": engine.total_clusters,
        "cluster_size": store.cluster_size,
        "owners": ["metadata", *(lvol.name for lvol in lvols)],
        "runs": list(runs(pairs)),
    }


def lvol_map_document(lvol: Lvol) -> dict[str, Any]:
    """Where each cluster of an lvol is read from: itself, an ancestor, or nowhere (zeros).

    What an external snapshot provides is the last owner, with its id as name.
    """
    with lvol.store.lock:
        return _lvol_map_document(lvol)


def _lvol_map_document(lvol: Lvol) -> dict[str, Any]:
    chain: list[Lvol] = [lvol]
    while (parent := chain[-1].parent) is not None:
        chain.append(parent)
    names = [link.name for link in chain]
    source: dict[int, int] = {}
    end = lvol.num_clusters
    for index, link in enumerate(chain):
        # Behind the end of one, what older ones have is not shown.
        end = min(end, link.num_clusters)
        for cluster, _ in link.blob.owned():
            if cluster < end:
                source.setdefault(cluster, index)
    owned = list(runs(sorted(source.items())))
    external = chain[-1].external_id
    if external is not None:
        names.append(external)
        owned = list(_with_gaps(owned, end, len(names) - 1))
    return {
        "name": lvol.name,
        "num_clusters": lvol.num_clusters,
        "cluster_size": lvol.store.cluster_size,
        "owners": names,
        "runs": owned,
    }


def _with_gaps(found: Iterable[Run], end: int, owner: int) -> Iterator[Run]:
    """The runs, and between them, up to `end`, those of another owner."""
    place = 0
    for first, count, index in found:
        if place < min(first, end):
            yield place, min(first, end) - place, owner
        yield first, count, index
        place = first + count
    if place < end:
        yield place, end - place, owner
