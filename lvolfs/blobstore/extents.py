"""Cluster maps as they are read from disk: only extents that own anything are there.

An extent is 512 clusters of a blob: little-endian u32, the device cluster of each, 0 = not
owned. A thin lvol may have hundreds of millions of clusters in a store of a few megabytes; what
it does not own costs neither memory nor a step.
"""

from array import array
from collections.abc import Iterable, Iterator

CLUSTERS_PER_EXTENT = 512
EXTENT_BYTES = 4 * CLUSTERS_PER_EXTENT

# index of the extent -> its EXTENT_BYTES, some of which are not 0
Extents = dict[int, bytes]
# (first cluster of the blob, first device cluster, how many)
Run = tuple[int, int, int]


def allocated_parts(extents: Extents) -> Iterator[tuple[int, memoryview]]:
    """(first index, 512 u32) of each extent."""
    for extent, part in extents.items():
        yield extent * CLUSTERS_PER_EXTENT, memoryview(part).cast("I")


def allocated(extents: Extents) -> Iterator[tuple[int, int]]:
    """(index, cluster number) of everything that is owned."""
    for first, part in allocated_parts(extents):
        for index, cluster in enumerate(part, start=first):
            if cluster:
                yield index, cluster


def cluster_at(extents: Extents, index: int) -> int:
    """The device cluster of one cluster of the blob, 0 = not owned."""
    part = extents.get(index // CLUSTERS_PER_EXTENT)
    at = index % CLUSTERS_PER_EXTENT * 4
    return 0 if part is None else int.from_bytes(part[at : at + 4], "little")


def extents_of_runs(runs: Iterable[Run]) -> Extents:
    """The map that run-length encoded extents describe."""
    parts: dict[int, array[int]] = {}
    for index, first, count in runs:
        done = 0
        while done < count:
            extent, within = divmod(index + done, CLUSTERS_PER_EXTENT)
            piece = min(count - done, CLUSTERS_PER_EXTENT - within)
            part = parts.setdefault(extent, array("I", bytes(EXTENT_BYTES)))
            part[within : within + piece] = array("I", range(first + done, first + done + piece))
            done += piece
    return {extent: part.tobytes() for extent, part in parts.items()}


def joined(ranges: Iterable[tuple[int, int]]) -> Iterator[range]:
    """Ranges (first, count), anyhow overlapping, as few that do not."""
    start = end = 0
    for first, count in sorted(ranges):
        if first > end:
            if end > start:
                yield range(start, end)
            start = first
        end = max(end, first + count)
    if end > start:
        yield range(start, end)
