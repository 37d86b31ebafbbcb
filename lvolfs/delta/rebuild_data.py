"""Moving and hashing the clusters of one layer of a rebuild."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lvolfs._native.copy import COPY, UNMAP, CopyLoop
from lvolfs.delta.background import run_loop, threads_for
from lvolfs.delta.checksum_table import ClusterChecksums, bit, bits_set, digest
from lvolfs.delta.checksums import hash_clusters
from lvolfs.delta.replica import PROGRESS_XATTR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lvolfs._native.checksum import Algorithm
    from lvolfs._native.endpoint import Endpoint
    from lvolfs.delta.checksum_table import Values
    from lvolfs.delta.jobs import Job
    from lvolfs.delta.rebuild_progress import Progress
    from lvolfs.delta.rebuild_report import LayerReport
    from lvolfs.delta.replica import Layer, Replica

# Clusters after which the destination is flushed and the progress noted; Longhorn's number.
BATCH: Final = 256


class Transfer:
    """From the layers of a source to the lvol `work` of a destination; counts in reports.

    hashing: take the checksums of what is copied on the way, so that nobody has to read the
    source a second time to verify the copy.
    """

    def __init__(
        self,
        source: Replica,
        destination: Replica,
        work: str,
        algorithm: Algorithm,
        job: Job,
        *,
        hashing: bool,
    ) -> None:
        self._source = source
        self._destination = destination
        self._work = work
        self._algorithm = algorithm
        self._job = job
        self._control = job.control
        self._hashing = hashing

    def copy(self, layer: Layer, progress: Progress, report: LayerReport) -> ClusterChecksums:
        """Does what is left to do for a snapshot, and notes how far it is. Gives the checksums
        of what it read."""
        found = ClusterChecksums(layer.num_clusters)
        owned = self._source.fragmap(layer.name)
        todo = array("I", bits_set(progress.todo if progress.mode == "delta" else owned))
        report.differing = len(todo)
        rest = array("I", (c for c in todo if c >= progress.next))
        self._job.skipped += len(todo) - len(rest)
        if progress.state == "copying":
            for last in self.batches(layer.name, rest, owned, report, found):
                progress = replace(progress, next=last + 1)
                self._destination.set_progress(self._work, {PROGRESS_XATTR: progress.encode()})
        self._destination.set_progress(
            self._work, {PROGRESS_XATTR: replace(progress, state="copied").encode()}
        )
        return found

    def batches(
        self,
        name: str,
        clusters: array[int],
        owned: bytes,
        report: LayerReport,
        found: ClusterChecksums,
    ) -> Iterator[int]:
        """Copies or unmaps; gives the last cluster of each batch once it is durable, when the
        checksums of what was copied are in `found`."""
        for first in range(0, len(clusters), BATCH):
            batch = clusters[first : first + BATCH]
            actions = bytes(COPY if bit(owned, c) else UNMAP for c in batch)
            before = self._counters()
            with (
                self._source.reading(name) as source,
                self._destination.writing(self._work) as destination,
            ):
                loop = CopyLoop(
                    source,
                    destination,
                    batch,
                    actions,
                    self._source.cluster_size,
                    self._control,
                    algorithm=self._algorithm if self._hashing else None,
                )
                try:
                    run_loop(loop, threads_for(None))
                    loop.flush()
                finally:
                    self._count(report, before)
            if self._hashing:
                values: array[int] = array("Q")
                values.frombytes(loop.values_bytes())
                found.note(
                    (c for c, action in zip(batch, actions, strict=True) if action == COPY),
                    (v for v, action in zip(values, actions, strict=True) if action == COPY),
                )
            yield batch[-1]

    def _counters(self) -> tuple[int, int, int, int]:
        c = self._control
        return c.copied, c.unmapped, c.bytes_read, c.bytes_written

    def _count(self, report: LayerReport, before: tuple[int, int, int, int]) -> None:
        now = self._counters()
        report.copied += now[0] - before[0]
        report.unmapped += now[1] - before[1]
        report.bytes_read += now[2] - before[2]
        report.bytes_moved += now[3] - before[3]

    def hash(self, endpoint: Endpoint, clusters: array[int], report: LayerReport) -> array[int]:
        """The checksum of each cluster, read now and registered nowhere."""
        before = self._counters()
        try:
            return hash_clusters(
                endpoint,
                self._algorithm,
                clusters,
                self._source.cluster_size,
                self._control,
                threads=threads_for(None),
            )
        finally:
            self._count(report, before)

    def digest(self, owned: bytes, values: Values) -> int:
        """The snapshot checksum out of those of the owned clusters; values: one per cluster."""
        return digest(self._algorithm, self._source.cluster_size, owned, values)
