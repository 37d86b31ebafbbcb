"""What is to be done about each snapshot of the source, decided before anything changes."""

from __future__ import annotations

import errno
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lvolfs.delta.checksum_table import ALGORITHMS, ClusterChecksums, bit, bits_set, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvolfs._native.checksum import Algorithm
    from lvolfs._native.control import Control
    from lvolfs.delta.checksum_table import ChecksumTable
    from lvolfs.delta.rebuild_report import Action
    from lvolfs.delta.replica import Layer, Replica

WORK_SUFFIX: Final = "-rebuilding"


@dataclass
class Step:
    """One snapshot of the source. todo: for delta, bitmap of clusters to copy or unmap."""

    layer: Layer
    action: Action
    replaces: bool = False
    todo: bytes = b""
    algorithm: Algorithm | None = None
    source_table: ChecksumTable | None = None
    destination_table: ChecksumTable | None = None

    def kept_checksums(self) -> ClusterChecksums:
        """For delta: those that the destination has registered of the clusters that it keeps."""
        found = ClusterChecksums(self.layer.num_clusters)
        here, there = self.source_table, self.destination_table
        if self.action == "delta" and here is not None and there is not None:
            kept = array("I", bits_set(without(here.owned, self.todo)))
            found.note(kept, (there.values[c] for c in kept))
        return found


def differing_clusters(source: ChecksumTable, destination: ChecksumTable) -> bytes:
    """Bitmap over the source's clusters: those that only one side owns and those whose
    checksums differ."""
    count = source.num_clusters
    length = len(source.owned)
    todo = bytearray(length)
    theirs = destination.owned[:length].ljust(length, b"\0")
    for at, (here, there) in enumerate(zip(source.owned, theirs, strict=True)):
        todo[at] = here ^ there
    if count & 7:
        todo[-1] &= (1 << (count & 7)) - 1
    for cluster, (ours, other) in enumerate(zip(source.values, destination.values, strict=False)):
        if ours != other and bit(source.owned, cluster):
            todo[cluster >> 3] |= 1 << (cluster & 7)
    return bytes(todo)


class Planner:
    """Compares the chains. Registers checksums where they are missing, if allowed."""

    def __init__(
        self,
        source: Replica,
        destination: Replica,
        *,
        algorithm: Algorithm,
        register_missing: bool,
        control: Control,
    ) -> None:
        self._source = source
        self._destination = destination
        self._register_missing = register_missing
        self._control = control
        # A snapshot that an interrupted run took: its checksums are looked at in any case.
        self.just_finished: str | None = None
        self._algorithms: list[Algorithm] = [algorithm]
        self._algorithms += [each for each in ALGORITHMS if each != algorithm]

    def plan(self, snapshots: Sequence[Layer], name: str) -> list[Step]:
        """A step for each snapshot, oldest first. OSError(EEXIST or EBUSY), before anything
        has been changed, when something of the destination stands in the way."""
        steps = []
        for layer in snapshots:
            theirs = self._destination.layer(layer.name)
            if theirs is not None and not theirs.snapshot:
                raise OSError(
                    errno.EEXIST,
                    f"the destination {self._destination.title} has a volume '{layer.name}' where "
                    "the source has a snapshot of that name; rename the volume",
                )
            steps.append(self._step(layer, theirs))
        self._check_way(steps, name)
        return steps

    def _step(self, layer: Layer, theirs: Layer | None) -> Step:
        if theirs is None:
            return Step(layer, "full")
        if theirs.external:
            return Step(layer, "full", replaces=True)
        same_shape = (
            layer.size == theirs.size
            and layer.owned == theirs.owned
            and self._source.fragmap(layer.name) == self._destination.fragmap(layer.name)
        )
        for algorithm in self._algorithms:
            ours = self._source.checksums(layer.name, algorithm)
            there = self._destination.checksums(layer.name, algorithm)
            step = _compared(layer, same_shape, ours, there)
            if step is not None:
                return step
        allowed = self._register_missing or layer.name == self.just_finished
        if allowed and theirs.owned:
            algorithm = self._algorithms[0]
            step = _compared(
                layer,
                same_shape,
                self._complete(self._source, layer.name, algorithm),
                self._complete(self._destination, layer.name, algorithm),
            )
            if step is not None:
                return step
        return Step(layer, "full", replaces=True)

    def _complete(self, replica: Replica, name: str, algorithm: Algorithm) -> ChecksumTable:
        found = replica.checksums(name, algorithm)
        if found is not None and found.complete:
            return found
        return replica.register(name, algorithm, self._control)

    def _check_way(self, steps: list[Step], name: str) -> None:
        ours = {step.layer.name for step in steps} | {name, name + WORK_SUFFIX}
        for step in steps:
            if not step.replaces:
                continue
            theirs = self._destination.layer(step.layer.name)
            if theirs is None:
                continue
            foreign = [child for child in theirs.children if child not in ours]
            if foreign:
                raise OSError(
                    errno.EBUSY,
                    f"snapshot '{theirs.name}' of the destination {self._destination.title} "
                    f"differs from the source's and has to be replaced, but "
                    f"{', '.join(repr(child) for child in foreign)} depends on it; "
                    "delete or inflate that first",
                )
            if theirs.in_use:
                raise OSError(
                    errno.EBUSY,
                    f"snapshot '{theirs.name}' of the destination {self._destination.title} has "
                    "to be replaced, but is in use; close it first",
                )


def _compared(
    layer: Layer, same_shape: bool, ours: ChecksumTable | None, theirs: ChecksumTable | None
) -> Step | None:
    if ours is None or theirs is None:
        return None
    if same_shape and ours.snapshot_checksum == theirs.snapshot_checksum:
        return Step(
            layer, "kept", algorithm=ours.algorithm, source_table=ours, destination_table=theirs
        )
    if not (ours.complete and theirs.complete):
        return None
    todo = differing_clusters(ours, theirs)
    return Step(
        layer,
        "delta",
        replaces=True,
        todo=todo,
        algorithm=ours.algorithm,
        source_table=ours,
        destination_table=theirs,
    )
