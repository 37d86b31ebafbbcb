"""lvolfs: two stores with a snapshot of the same name, checksums registered on both sides."""

import contextlib
import time
from pathlib import Path

from bench.case import Sample
from bench.content import Content, scattered
from bench.page_cache import kept_warm
from bench.processes import ProgramError
from bench.processes import lvolfs as command
from bench.settings import MIB
from lvolfs import Lvol, Lvstore, RebuildReport, rebuild
from lvolfs.delta.checksums import register

VOLUME, SNAPSHOT = "volume", "base"


class DeltaRebuild:
    """The replica's snapshot differs from the source's in some clusters, as after an outage.

    rebuild() is called in this process on two open stores, as a daemon does it.
    """

    def open(self, directory: Path, size: int) -> None:
        self.size = size
        self.stack = contextlib.ExitStack()
        self.paths = [directory / "source.store", directory / "replica.store"]
        if self.paths[1].exists():
            return
        content = Content()
        for path in self.paths:
            with Lvstore.create(str(path), size=size * 17 // 8 + 256 * MIB) as store:
                fill(store.create_volume(VOLUME, size), content, range(size // MIB))
        # Of the replica no more is read than has just been written.
        self.stack.enter_context(kept_warm(self.paths[0]))

    def change(self, share: float, seed: int) -> int:
        """Writes into a clone of the replica's snapshot, which takes the snapshot's place."""
        numbers = scattered(self.size // MIB, share, seed)
        with Lvstore.open(str(self.paths[1])) as store:
            store.get(VOLUME).delete()
            volume = store.get(SNAPSHOT).clone(VOLUME)
            store.get(SNAPSHOT).delete()
            fill(volume, Content(), numbers)
        return len(numbers) * MIB

    def update(self) -> Sample:
        with (
            Lvstore.open(str(self.paths[0])) as source,
            Lvstore.open(str(self.paths[1])) as replica,
        ):
            read = sum(reads(store) for store in (source, replica))
            start = time.monotonic()
            report = rebuild(source.get(VOLUME), replica, VOLUME)
            seconds = time.monotonic() - start
            read = sum(reads(store) for store in (source, replica)) - read
        return sample_of(report, seconds) | {"device_read": float(read)}

    def verify(self) -> None:
        with Lvstore.open(str(self.paths[0])) as a, Lvstore.open(str(self.paths[1])) as b:
            sums = [
                (lvol.num_allocated_clusters, lvol.get_xattr("lvolfs.xxh3")[:64])
                for lvol in (a.get(SNAPSHOT), b.get(SNAPSHOT))
            ]
        if sums[0] != sums[1]:
            raise ProgramError(f"after the rebuild the snapshots differ: {sums}")

    def close(self) -> None:
        self.stack.close()


def reads(store: Lvstore) -> int:
    """Bytes read from the store's device since it was opened."""
    return int(store._device.counters["bytes_read"])


def fill(volume: Lvol, content: Content, numbers: range | list[int]) -> None:
    """Writes clusters, freezes them as SNAPSHOT and registers its checksums."""
    for number in numbers:
        volume.pwrite(content.block(number), number * MIB)
    volume.flush()
    job = register(volume.snapshot(SNAPSHOT))
    job.wait()
    job.raise_if_failed()


def sample_of(report: RebuildReport, seconds: float) -> Sample:
    differing = report.total("differing") * report.cluster_size
    return {
        "value": seconds,
        "moved": float(report.total("bytes_moved")),
        "bytes_read": float(report.total("bytes_read")),
        "read_per_differing": report.total("bytes_read") / max(differing, 1),
    }


class CommandRebuild(DeltaRebuild):
    """The same by `lvolfs rebuild` on closed stores: starting Python and opening both is in it."""

    def update(self) -> Sample:
        source, replica = (f"{path}:{VOLUME}" for path in self.paths)
        start = time.monotonic()
        totals = command("rebuild", source, replica)["totals"]
        return {"value": time.monotonic() - start, "moved": float(totals["bytes_moved"])}


class FullRebuild(DeltaRebuild):
    """A replica that has nothing: all clusters are copied. The new store is not timed."""

    def change(self, share: float, seed: int) -> int:  # noqa: ARG002
        self.paths[1].unlink()
        Lvstore.create(str(self.paths[1]), size=self.size * 17 // 8 + 256 * MIB).close()
        return self.size
