"""What a store shows, in a form that states after a cut can be compared in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import xxhash

from lvolfs._native.checksum import crc64
from lvolfs.delta import checksums
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore

# Lvols of more clusters are looked at, and written to, around the ends of extents only.
FULLY_SHOWN = 64
CLUSTERS_PER_EXTENT = 512


@dataclass(frozen=True)
class Shape:
    """size in clusters; fields: all xattrs as they are stored; checksums: per algorithm the
    snapshot's checksum and how many clusters have one."""

    size: int
    parent: str | None
    external: str | None
    read_only: bool
    thin: bool
    fields: tuple[tuple[str, bytes], ...]
    checksums: tuple[tuple[str, int | None, int], ...] = ()


@dataclass(frozen=True)
class View:
    """Per lvol its shape, and the bytes of its windows, one after the other."""

    name: str
    shapes: Mapping[str, Shape]
    contents: Mapping[str, bytes]


def windows(clusters: int) -> Iterator[range]:
    """The runs of clusters that are looked at, of an lvol of so many."""
    if clusters <= FULLY_SHOWN:
        yield range(clusters)
        return
    for edge in range(0, clusters + 4, CLUSTERS_PER_EXTENT):
        yield range(max(0, min(edge - 4, clusters)), min(clusters, edge + 4))


def view_of(store: Lvstore, before: View | None = None) -> View:
    """before: an earlier one, whose bytes objects are used again where they are equal."""
    shapes: dict[str, Shape] = {}
    contents: dict[str, bytes] = {}
    for lvol in store.lvols:
        shapes[lvol.name] = Shape(
            lvol.num_clusters,
            lvol.parent.name if lvol.parent else None,
            lvol.external_id,
            lvol.is_read_only,
            lvol.is_thin,
            tuple(sorted(lvol.metadata.xattrs.items())),
            _registered(lvol),
        )
        content = _content(lvol)
        known = before.contents.get(lvol.name) if before is not None else None
        contents[lvol.name] = known if known == content else content
    return View(store.name, shapes, contents)


def _content(lvol: Lvol) -> bytes:
    size = lvol.store.cluster_size
    if lvol.num_clusters <= FULLY_SHOWN:
        return lvol.pread(lvol.size, 0)
    shown = list(windows(lvol.num_clusters))
    owned = int.from_bytes(lvol.fragmap(), "little")
    for window in shown:
        owned &= ~((1 << window.stop) - (1 << window.start))
    while owned:
        # Nothing was written there: a decoupled or grown clone may own zeros.
        first = (owned & -owned).bit_length() - 1
        if any(lvol.pread(size, first * size)):
            raise AssertionError(f"{lvol.name} has data where nothing was written")
        owned &= owned - 1
    return b"".join(lvol.pread(len(window) * size, window.start * size) for window in shown)


def _registered(lvol: Lvol) -> tuple[tuple[str, int | None, int], ...]:
    """What is registered; each cluster's checksum is compared with its data."""
    found = []
    for algorithm in ("xxh3", "crc64"):
        table = checksums.table(lvol, algorithm)
        if table is None:
            continue
        for cluster in range(lvol.num_clusters):
            registered = table.checksum(cluster)
            if registered is None:
                continue
            data = lvol.blob.read_own_cluster(cluster)
            now = xxhash.xxh3_64_intdigest(data) if algorithm == "xxh3" else crc64(data)
            if now != registered:
                raise AssertionError(f"cluster {cluster} of {lvol.name} is not as registered")
        found.append((algorithm, table.snapshot_checksum, table.num_registered))
    return tuple(found)
