"""Rebuilding a volume and its snapshots on another store, copying only what differs.

The source's live head is frozen by a temporary snapshot, then its chain is walked oldest
first. Work happens in an lvol called NAME-rebuilding, from which the destination's snapshots
are taken; it becomes NAME at the end, in place of what had that name. After an interruption
the next run keeps the snapshots that are finished and goes on in NAME-rebuilding.
"""

from __future__ import annotations

import errno
import re
import secrets
import time
from array import array
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lvolfs.delta.checksum_table import ClusterChecksums, bits_set
from lvolfs.delta.rebuild_data import Transfer
from lvolfs.delta.rebuild_plan import WORK_SUFFIX, Planner, Step
from lvolfs.delta.rebuild_progress import HEAD, Progress, decode
from lvolfs.delta.rebuild_report import LayerReport, RebuildReport, hexadecimal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvolfs._native.checksum import Algorithm
    from lvolfs.delta.jobs import Job
    from lvolfs.delta.replica import Layer, Replica

_TEMPORARY = re.compile(r"rebuild-[0-9a-f]{8}\Z")
_MARK: Final = "rebuild"


class Rebuild:
    """One run. Not to be used twice."""

    def __init__(
        self,
        source: Replica,
        source_name: str,
        destination: Replica,
        name: str,
        *,
        algorithm: Algorithm,
        register_missing: bool,
        verify: bool,
        job: Job,
    ) -> None:
        self._source = source
        self._source_name = source_name
        self._destination = destination
        self._name = name
        self._work = name + WORK_SUFFIX
        self._algorithm = algorithm
        self._register_missing = register_missing
        self._verify = verify
        self._job = job
        self._transfer = Transfer(source, destination, self._work, algorithm, job, hashing=verify)
        self.report = RebuildReport(
            f"{source.title}: {source_name}", destination.title, name, source.cluster_size
        )

    def run(self) -> RebuildReport:
        begun = time.monotonic()
        self._check()
        self._drop_leftovers()
        head = self._layer(self._source_name)
        held = ExitStack()
        temporary = None
        if not (head.read_only or self._source.read_only):
            temporary = self._freeze(head)
        try:
            with held:
                frozen = temporary or (None if head.read_only else head.name)
                chain = self._chain(frozen or head.name)
                for layer in chain:
                    held.enter_context(self._source.reading(layer.name))
                snapshots = chain[:-1] if frozen is not None else chain
                self._check_names(snapshots)
                self._rebuild(snapshots, chain[-1] if frozen is not None else None, head)
        finally:
            if temporary is not None:
                # Its clusters go back into the head, also after a failure.
                self._source.delete(temporary)
        self.report.seconds = time.monotonic() - begun
        return self.report

    # -- before anything changes

    def _layer(self, name: str) -> Layer:
        found = self._source.layer(name)
        if found is None:
            raise OSError(errno.ENOENT, f"no lvol '{name}' in {self._source.title}")
        return found

    def _check(self) -> None:
        if self._source.location == self._destination.location:
            raise OSError(errno.EINVAL, f"{self._source.title} cannot be rebuilt onto itself")
        if self._source.cluster_size != self._destination.cluster_size:
            raise OSError(
                errno.EINVAL,
                f"{self._source.title} has clusters of {self._source.cluster_size} bytes and "
                f"{self._destination.title} of {self._destination.cluster_size}; create the "
                "destination with the same cluster size",
            )
        if self._destination.read_only:
            raise OSError(errno.EROFS, f"{self._destination.title} is open read-only")
        old = self._destination.layer(self._name)
        if old is not None and old.snapshot:
            raise OSError(
                errno.EEXIST,
                f"'{self._name}' is a snapshot in {self._destination.title}; choose another name",
            )
        if old is not None and old.in_use:
            raise OSError(
                errno.EBUSY,
                f"'{self._name}' in {self._destination.title} is in use; disconnect it first",
            )
        work = self._destination.layer(self._work)
        # Without progress and empty it may be one that was just made when the run ended.
        foreign = work is not None and not self._destination.progress(self._work)
        if foreign and work is not None and (work.owned or work.children or work.snapshot):
            raise OSError(
                errno.EEXIST,
                f"'{self._work}' in {self._destination.title} is no rebuild's; rename or delete it",
            )

    def _drop_leftovers(self) -> None:
        """Temporary snapshots of runs that were killed."""
        if self._source.read_only:
            return
        name: str | None = self._layer(self._source_name).parent
        while name is not None:
            layer = self._layer(name)
            if _TEMPORARY.match(name) and _MARK in layer.xattrs:
                if layer.in_use:
                    raise OSError(
                        errno.EBUSY, f"'{self._source_name}' is being rebuilt already ('{name}')"
                    )
                self._source.delete(name)
            name = layer.parent

    def _freeze(self, head: Layer) -> str:
        name = f"rebuild-{secrets.token_hex(4)}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        xattrs = {"user_created": b"false", "snapshot_timestamp": now.encode(), _MARK: b"temporary"}
        self._source.snapshot(head.name, name, xattrs)
        return name

    def _chain(self, name: str) -> list[Layer]:
        """Oldest first."""
        found: list[Layer] = []
        link: str | None = name
        while link is not None:
            layer = self._layer(link)
            if layer.external:
                raise OSError(
                    errno.EOPNOTSUPP,
                    f"'{layer.name}' in {self._source.title} stands on an external snapshot, which "
                    "a rebuild does not take along; decouple it first",
                )
            found.append(layer)
            link = layer.parent
        return found[::-1]

    def _check_names(self, snapshots: Sequence[Layer]) -> None:
        names = {layer.name for layer in snapshots}
        if self._name in names or self._work in names:
            raise OSError(
                errno.EEXIST,
                f"'{self._name}' cannot be the volume's name: the source has a snapshot "
                f"'{self._name if self._name in names else self._work}'",
            )
        old = self._destination.layer(self._name)
        while old is not None and old.parent is not None:
            if old.parent not in names:
                self.report.left_alone.append(old.parent)
            old = self._destination.layer(old.parent)

    # -- the work

    def _rebuild(self, snapshots: Sequence[Layer], frozen: Layer | None, head: Layer) -> None:
        self._job.phase = "comparing"
        planner = Planner(
            self._source,
            self._destination,
            algorithm=self._algorithm,
            register_missing=self._register_missing,
            control=self._job.control,
        )
        resumed = self._unfinished(snapshots, planner)
        steps = planner.plan(snapshots, self._name)
        if resumed is not None and not self._can_go_on(steps, resumed):
            self._destination.delete(self._work)
            resumed = None
        for step in steps:
            if resumed is not None and step.layer.uuid == resumed.layer:
                step.action, step.todo = resumed.mode, resumed.todo
            self._job.total += self._size_of(step)
        self._job.total += frozen.owned if frozen is not None else 0
        previous: Layer | None = None
        for step in steps:
            self._snapshot_step(step, previous, resumed)
            previous = step.layer
        if frozen is not None:
            self._head_step(frozen, previous)
        else:
            self._ready(previous, head.size)
        self._finish(head)

    @staticmethod
    def _size_of(step: Step) -> int:
        if step.action == "delta":
            return sum(1 for _ in bits_set(step.todo))
        return step.layer.owned if step.action == "full" else 0

    @staticmethod
    def _can_go_on(steps: Sequence[Step], resumed: Progress) -> bool:
        """Everything below the snapshot that was being copied is still as it was."""
        for step in steps:
            if step.layer.uuid == resumed.layer:
                return True
            if step.action != "kept":
                return False
        return False

    def _unfinished(self, snapshots: Sequence[Layer], planner: Planner) -> Progress | None:
        """What an interrupted run left to go on with; other remains of it are removed."""
        work = self._destination.layer(self._work)
        if work is None:
            return None
        progress = decode(self._destination.progress(self._work))
        if progress is not None and progress.layer == HEAD:
            return None  # _head_step looks at what is there itself
        for layer in snapshots:
            if progress is None or (layer.uuid, layer.owned) != (progress.layer, progress.owned):
                continue
            if self._destination.layer(layer.name) is None:
                if progress.state == "merging":
                    self._resize(layer.size)
                    return replace(progress, state="copying")
                return progress
            if progress.state == "copied" and work.parent == layer.name:
                # The snapshot was taken, perhaps not yet verified.
                planner.just_finished = layer.name
        self._destination.delete(self._work)
        return None

    def _snapshot_step(self, step: Step, previous: Layer | None, resumed: Progress | None) -> None:
        begun = time.monotonic()
        layer = step.layer
        self._job.phase = layer.name
        report = LayerReport(layer.name, "snapshot", step.action, layer.owned)
        self.report.layers.append(report)
        parent = previous.name if previous is not None else None
        if step.action == "kept":
            self._reparent(layer.name, parent)
            if step.source_table is not None and step.destination_table is not None:
                self._note(
                    report,
                    step.source_table.algorithm,
                    step.source_table.snapshot_checksum,
                    step.destination_table.snapshot_checksum,
                )
        else:
            if resumed is not None and resumed.layer == layer.uuid:
                progress = resumed
                report.resumed = True
            else:
                progress = self._begin(step, previous)
            copied = self._transfer.copy(layer, progress, report)
            self._reparent(self._work, parent)
            self._destination.snapshot(self._work, layer.name, layer.xattrs)
            if self._verify:
                self._verify_snapshot(step, report, copied)
        report.seconds = time.monotonic() - begun

    def _begin(self, step: Step, previous: Layer | None) -> Progress:
        """Makes the rebuilding lvol ready for a snapshot and notes what is to be done."""
        layer = step.layer
        old = self._destination.layer(layer.name) if step.replaces else None
        if old is not None:
            for child in old.children:
                if child != self._work:
                    self._destination.detach(child)
        if step.action == "delta" and old is not None:
            # As a clone of the old snapshot, into which that one is merged; without a parent,
            # so that unmapping a cluster frees it.
            if self._destination.layer(self._work) is not None:
                self._destination.delete(self._work)
            if old.parent is not None:
                self._destination.detach(old.name)
            self._destination.clone(old.name, self._work)
            progress = Progress(layer.uuid, layer.owned, "delta", "merging", todo=step.todo)
            self._destination.set_progress(self._work, progress.xattrs())
            self._destination.delete(old.name)
            self._resize(layer.size)
        else:
            if old is not None:
                if self._work in old.children:
                    self._destination.delete(self._work)
                self._destination.delete(old.name)
            self._ready(previous, layer.size)
            progress = Progress(layer.uuid, layer.owned, "full", "copying")
        progress = replace(progress, state="copying")
        self._destination.set_progress(self._work, progress.xattrs())
        return progress

    def _ready(self, previous: Layer | None, size: int) -> None:
        """An empty rebuilding lvol over the snapshot before."""
        parent = previous.name if previous is not None else None
        work = self._destination.layer(self._work)
        if work is not None and work.owned:
            self._destination.delete(self._work)
            work = None
        if work is not None:
            self._reparent(self._work, parent)
        elif parent is not None:
            self._destination.clone(parent, self._work)
        else:
            self._destination.create_volume(self._work, size)
        self._resize(size)

    def _resize(self, size: int) -> None:
        work = self._destination.layer(self._work)
        if work is not None and work.size != size:
            self._destination.resize(self._work, size)

    def _reparent(self, name: str, parent: str | None) -> None:
        layer = self._destination.layer(name)
        if layer is None or layer.parent == parent:
            return
        if parent is None:
            self._destination.detach(name)
        else:
            self._destination.set_parent(name, parent)

    def _head_step(self, frozen: Layer, previous: Layer | None) -> None:
        """The live head's own clusters, as the temporary snapshot froze them."""
        begun = time.monotonic()
        self._job.phase = "head"
        report = LayerReport(self._source_name, "head", "full", frozen.owned)
        self.report.layers.append(report)
        owned = self._source.fragmap(frozen.name)
        done = self._head_done_before(frozen, previous, owned, report)
        if not done:
            self._ready(previous, frozen.size)
            self._destination.set_progress(
                self._work, Progress(HEAD, frozen.owned, "full", "copying").xattrs()
            )
        todo = array("I", (c for c in bits_set(owned) if c not in done))
        report.differing = frozen.owned
        report.resumed = bool(done)
        self._job.skipped += len(done)
        for _ in self._transfer.batches(frozen.name, todo, owned, report, done):
            pass
        if self._verify:
            theirs = ClusterChecksums(frozen.num_clusters)
            clusters = array("I", bits_set(owned))
            with self._destination.writing(self._work) as destination:
                theirs.note(clusters, self._transfer.hash(destination, clusters, report))
            self._note(
                report,
                self._algorithm,
                self._transfer.digest(owned, done.values),
                self._transfer.digest(owned, theirs.values),
            )
            if (
                self._destination.fragmap(self._work) != owned
                or report.source_checksum != report.destination_checksum
            ):
                raise self._mismatch(report)
        report.seconds = time.monotonic() - begun

    def _head_done_before(
        self, frozen: Layer, previous: Layer | None, owned: bytes, report: LayerReport
    ) -> ClusterChecksums:
        """Clusters that an interrupted run copied and that are still right; their checksums.

        The head may have changed since then, so both sides are read and compared.
        """
        found = ClusterChecksums(frozen.num_clusters)
        work = self._destination.layer(self._work)
        if work is None or not work.owned:
            return found
        progress = decode(self._destination.progress(self._work))
        parent = previous.name if previous is not None else None
        there = self._destination.fragmap(self._work)
        if (
            progress is None
            or progress.layer != HEAD
            or work.parent != parent
            or work.size != frozen.size
            or any(mine & ~theirs for mine, theirs in zip(there, owned, strict=True))
        ):
            return found
        clusters = array("I", bits_set(there))
        with (
            self._source.reading(frozen.name) as source,
            self._destination.writing(self._work) as destination,
        ):
            ours = self._transfer.hash(source, clusters, report)
            theirs = self._transfer.hash(destination, clusters, report)
        for c, a, b in zip(clusters, ours, theirs, strict=True):
            if a == b:
                found.note([c], [a])
        return found

    # -- verifying

    def _verify_snapshot(self, step: Step, report: LayerReport, copied: ClusterChecksums) -> None:
        """Registers both sides and compares. What was copied is read back at the destination;
        at the source its checksum is there already, or was taken on the way."""
        name = step.layer.name
        algorithm = step.algorithm or self._algorithm
        ours = step.source_table or self._source.checksums(name, algorithm)
        if ours is None:
            known = copied if algorithm == self._algorithm else None
            to_read = step.layer.owned - (0 if known is None else len(known))
            ours = self._source.register(name, algorithm, self._job.control, known)
            report.bytes_read += to_read * self._source.cluster_size
        # What an interrupted run has kept is read, too: nobody remembers its checksums.
        kept = None if report.resumed else step.kept_checksums()
        num_kept = 0 if kept is None else len(kept)
        theirs = self._destination.register(name, algorithm, self._job.control, kept)
        report.bytes_read += (theirs.num_owned - num_kept) * self._source.cluster_size
        self._note(report, algorithm, ours.snapshot_checksum, theirs.snapshot_checksum)
        if ours.snapshot_checksum != theirs.snapshot_checksum or ours.owned != theirs.owned:
            raise self._mismatch(report)

    @staticmethod
    def _note(
        report: LayerReport, algorithm: str, source: int | None, destination: int | None
    ) -> None:
        report.algorithm = algorithm
        report.source_checksum = hexadecimal(source)
        report.destination_checksum = hexadecimal(destination)

    def _mismatch(self, report: LayerReport) -> OSError:
        return OSError(
            errno.EIO,
            f"{report.kind} '{report.name}' does not match after the copy: {report.algorithm} "
            f"{report.source_checksum} at the source, {report.destination_checksum} in "
            f"{self._destination.title}; 'checksum verify' and 'scrub' tell which side is damaged",
        )

    # -- the end

    def _finish(self, head: Layer) -> None:
        self._job.phase = "finishing"
        for xattr, value in head.xattrs.items():
            self._destination.set_xattr(self._work, xattr, value)
        nothing: dict[str, bytes | None] = dict.fromkeys(self._destination.progress(self._work))
        if self._destination.layer(self._name) is not None:
            self._destination.delete(self._name)
        self._destination.rename(self._work, self._name)
        if nothing:
            self._destination.set_progress(self._name, nothing)
