"""Which clusters differ between two snapshots, reading as little as can be."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lvolfs._native.checksum import zero_cluster
from lvolfs._native.compare import CompareLoop
from lvolfs._native.control import Control
from lvolfs.delta.background import run_loop, threads_for
from lvolfs.delta.checksum_table import ALGORITHMS, bit
from lvolfs.delta.content import EXTERNAL, UNKNOWN, ZEROS, Content, LvolContent

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm
    from lvolfs.lvstore.lvol import Lvol

# Maps are compared in pieces of this many clusters, most of which are all alike.
_STRIDE: Final = 4096


@dataclass(frozen=True)
class DiffReport:
    """Clusters that differ, as ascending ranges, and how each was decided.

    num_clusters is that of the larger side; past its end the smaller one counts as zeros.
    by_map: same device cluster, or zeros on both sides. by_checksum: registered checksums of
    the lvols that own them. by_reading: neither was at hand.
    """

    ranges: list[range]
    num_clusters: int
    cluster_size: int
    sizes: tuple[int, int]
    by_map: int
    by_checksum: int
    by_reading: int
    bytes_read: int

    @property
    def differing(self) -> int:
        """Clusters."""
        return sum(len(each) for each in self.ranges)

    @property
    def equal(self) -> bool:
        """Same size and same content."""
        return not self.ranges and self.sizes[0] == self.sizes[1]

    def as_dict(self) -> dict[str, object]:
        return {
            "equal": self.equal,
            "sizes": list(self.sizes),
            "cluster_size": self.cluster_size,
            "num_clusters": self.num_clusters,
            "differing_clusters": self.differing,
            "ranges": [[each.start, len(each)] for each in self.ranges],
            "decided_by": {
                "map": self.by_map,
                "checksum": self.by_checksum,
                "reading": self.by_reading,
            },
            "bytes_read": self.bytes_read,
        }


def as_ranges(clusters: Sequence[int]) -> list[range]:
    """Ascending indexes as ranges."""
    found: list[range] = []
    for cluster in clusters:
        if found and found[-1].stop == cluster:
            found[-1] = range(found[-1].start, cluster + 1)
        else:
            found.append(range(cluster, cluster + 1))
    return found


def diff(a: Lvol, b: Lvol, *, control: Control | None = None) -> DiffReport:
    """Compares what two lvols show, of the same store or of two, through their chains.

    A writable lvol is compared as it is while it is being looked at. OSError: EINVAL for
    different cluster sizes, ECANCELED when `control` is cancelled, or the error of a read.
    """
    return diff_contents(LvolContent(a), LvolContent(b), control=control)


def diff_contents(a: Content, b: Content, *, control: Control | None = None) -> DiffReport:
    """diff() of any two contents."""
    if a.cluster_size != b.cluster_size:
        raise OSError(
            errno.EINVAL,
            f"{a.name} has clusters of {a.cluster_size} bytes and {b.name} of {b.cluster_size}; "
            "only stores with the same cluster size can be compared",
        )
    control = control if control is not None else Control()
    count = max(a.num_clusters, b.num_clusters)
    with a.reading() as left, b.reading() as right:
        places = (_padded(a.places(), count), _padded(b.places(), count))
        undecided = _undecided_by_map(*places, same_space=a.space is b.space)
        different, unread = _undecided_by_checksum(a, b, places, undecided)
        by_checksum = len(undecided) - len(unread)
        loop = CompareLoop(left, right, unread, a.cluster_size, control)
        before = control.bytes_read
        run_loop(loop, threads_for(None))
        different.extend(c for c, found in zip(unread, loop.differs_bytes(), strict=True) if found)
    return DiffReport(
        ranges=as_ranges(sorted(different)),
        num_clusters=count,
        cluster_size=a.cluster_size,
        sizes=(a.size, b.size),
        by_map=count - len(undecided),
        by_checksum=by_checksum,
        by_reading=len(unread),
        bytes_read=control.bytes_read - before,
    )


def _padded(places: array[int], count: int) -> array[int]:
    """What lies past the end of the smaller side counts as zeros."""
    places.extend(array("I", [ZEROS]) * (count - len(places)))
    return places


def _undecided_by_map(a: array[int], b: array[int], *, same_space: bool) -> array[int]:
    """The clusters that their places do not show to be equal.

    Two stores may use the same number for different things, except for ZEROS. EXTERNAL may
    be two different devices, so it proves nothing even in one store.
    """
    undecided: array[int] = array("I")
    zeros = array("I", [ZEROS]) * _STRIDE
    for first in range(0, len(a), _STRIDE):
        here, there = a[first : first + _STRIDE], b[first : first + _STRIDE]
        if here == there and (
            here == zeros[: len(here)]
            or (same_space and EXTERNAL not in here and UNKNOWN not in here)
        ):
            continue
        undecided.extend(
            first + i
            for i, (ours, theirs) in enumerate(zip(here, there, strict=True))
            if ours != theirs or ours in (EXTERNAL, UNKNOWN) or not (same_space or ours == ZEROS)
        )
    return undecided


class _Known:
    """The checksums of one side under one algorithm."""

    def __init__(self, content: Content, places: array[int], algorithm: Algorithm) -> None:
        self._places = places
        self._registered, self._values = content.known(algorithm)
        self._zeros = zero_cluster(algorithm, content.cluster_size)

    def checksum(self, cluster: int) -> int | None:
        if self._places[cluster] == ZEROS:
            return self._zeros
        return self._values[cluster] if bit(self._registered, cluster) else None


def _undecided_by_checksum(
    a: Content, b: Content, places: tuple[array[int], array[int]], clusters: array[int]
) -> tuple[list[int], array[int]]:
    """Which of `clusters` differ by their checksums, and which have none to compare."""
    different: list[int] = []
    for algorithm in ALGORITHMS:
        if not clusters:
            break
        left, right = _Known(a, places[0], algorithm), _Known(b, places[1], algorithm)
        rest: array[int] = array("I")
        for c in clusters:
            here, there = left.checksum(c), right.checksum(c)
            if here is None or there is None:
                rest.append(c)
            elif here != there:
                different.append(c)
        clusters = rest
    return different, clusters
