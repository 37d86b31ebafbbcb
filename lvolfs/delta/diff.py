"""Which clusters differ between two snapshots, reading as little as can be."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvolfs._native.checksum import zero_cluster
from lvolfs._native.compare import CompareLoop
from lvolfs._native.control import Control
from lvolfs.delta.checksum_table import ALGORITHMS, bit
from lvolfs.delta.content import EXTERNAL, UNKNOWN, ZEROS, Content, LvolContent

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol


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
        by_map, undecided = _undecided_by_map(a, b, count)
        different, unread = _undecided_by_checksum(a, b, undecided)
        by_checksum = len(undecided) - len(unread)
        loop = CompareLoop(left, right, unread, a.cluster_size, control)
        before = control.bytes_read
        loop.run()
        different.extend(c for c, found in zip(unread, loop.differs_bytes(), strict=True) if found)
    return DiffReport(
        ranges=as_ranges(sorted(different)),
        num_clusters=count,
        cluster_size=a.cluster_size,
        sizes=(a.size, b.size),
        by_map=by_map,
        by_checksum=by_checksum,
        by_reading=len(unread),
        bytes_read=control.bytes_read - before,
    )


def _undecided_by_map(a: Content, b: Content, count: int) -> tuple[int, array[int]]:
    """How many clusters the maps show to be equal, and the others."""
    places_a, places_b = a.places(), b.places()
    places_a.extend([ZEROS] * (count - len(places_a)))
    places_b.extend([ZEROS] * (count - len(places_b)))
    # Two stores may use the same number for different things, except for ZEROS. EXTERNAL
    # may be two different devices, so it proves nothing even in one store.
    same_space = a.space is b.space
    undecided = array(
        "I",
        (
            c
            for c, (here, there) in enumerate(zip(places_a, places_b, strict=True))
            if here != there or here in (EXTERNAL, UNKNOWN) or not (same_space or here == ZEROS)
        ),
    )
    return count - len(undecided), undecided


def _undecided_by_checksum(
    a: Content, b: Content, clusters: array[int]
) -> tuple[list[int], array[int]]:
    """Which of `clusters` differ by their checksums, and which have none to compare."""
    different: list[int] = []
    for algorithm in ALGORITHMS:
        if not clusters:
            break
        known_a, values_a = a.known(algorithm)
        known_b, values_b = b.known(algorithm)
        zeros = zero_cluster(algorithm, a.cluster_size)
        rest: array[int] = array("I")
        for c in clusters:
            here = _value(known_a, values_a, c, zeros)
            there = _value(known_b, values_b, c, zeros)
            if here is None or there is None:
                rest.append(c)
            elif here != there:
                different.append(c)
        clusters = rest
    return different, clusters


def _value(known: bytes, values: array[int], cluster: int, zeros: int) -> int | None:
    if cluster >= len(values):
        return zeros
    return values[cluster] if bit(known, cluster) else None
