"""A random life of a small store, recorded: what was done, and what it showed after each step.

Every sector that is written carries a number of its own, so that a state after a cut tells
for each sector which write it shows.
"""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from lvolfs._native.checksum import crc64
from lvolfs.delta import checksums
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore

SECTOR = 512
CLUSTER = 16 * 1024
CLUSTERS = 160
VOLUME_CLUSTERS = 6


@dataclass(frozen=True)
class View:
    """What a store shows: per lvol its shape, and the number in each of its sectors."""

    shapes: dict[str, tuple[object, ...]]
    sectors: dict[str, bytes]


def view_of(store: Lvstore) -> View:
    shapes: dict[str, tuple[object, ...]] = {}
    sectors: dict[str, bytes] = {}
    for lvol in store.lvols:
        parent = lvol.parent.name if lvol.parent else None
        xattrs = tuple((name, lvol.get_xattr(name)) for name in sorted(lvol.list_xattrs()))
        shape = (lvol.size, parent, lvol.is_read_only, lvol.is_thin, xattrs)
        shapes[lvol.name] = (*shape, *registered_checksums(lvol))
        sectors[lvol.name] = sector_numbers(lvol.pread(lvol.size, 0))
    return View(shapes, sectors)


def registered_checksums(lvol: Lvol) -> list[tuple[str, int | None, int]]:
    """Per algorithm the snapshot checksum and how many clusters have one; each is checked."""
    found = []
    for algorithm in ("xxh3", "crc64"):
        table = checksums.table(lvol, algorithm)
        if table is None:
            continue
        for c in range(lvol.num_clusters):
            registered = table.checksum(c)
            if registered is None:
                continue
            data = lvol.blob.read_own_cluster(c)
            now = xxhash.xxh3_64_intdigest(data) if algorithm == "xxh3" else crc64(data)
            if now != registered:
                raise AssertionError(f"cluster {c} of {lvol.name} is not as registered")
        found.append((algorithm, table.snapshot_checksum, table.num_registered))
    return found


def sector_numbers(content: bytes) -> bytes:
    """The number of each sector, 8 bytes each; a sector of mixed numbers is an error."""
    words = array("Q", content)
    step = SECTOR // 8
    first = words[::step]
    if first != words[step - 1 :: step] or first != words[step // 2 :: step]:
        raise AssertionError("a sector is torn or holds foreign bytes")
    return first.tobytes()


@dataclass(frozen=True)
class Step:
    """durable: when it has ended, everything up to it is. shape: it changes more than data."""

    text: str
    durable: bool
    shape: bool
    view: View


@dataclass
class History:
    steps: list[Step] = field(default_factory=list)


class Recording:
    """Runs random operations on a recorded store. Mark 2k is the beginning of step k, 2k+1
    its end."""

    def __init__(self, directory: Path, seed: int, fault: str | None = None) -> None:
        self.chance = random.Random(seed)
        self.path = directory / "store.img"
        self.log = directory / "writes.log"
        Lvstore.create(
            str(self.path), size=CLUSTERS * CLUSTER, cluster_size=CLUSTER, name="crash"
        ).close()
        self.base = self.path.read_bytes()
        self.store = Lvstore.open(str(self.path))
        self.device = self.store.engine.device
        self.store.engine.stop_flusher()
        if fault is not None:
            self.store.engine.seed_fault(fault)
        self.device.record(str(self.log))
        self.history = History()
        self._number = 0
        self._names = 0
        self.history.steps.append(Step("nothing", True, True, view_of(self.store)))
        self.device.mark(0)
        self.device.mark(1)

    def close(self) -> None:
        self._step("close", True, False, self.store.close, view=False)

    def run(self, steps: int) -> None:
        actions = [
            (6, self._write),
            (1, self._unmap),
            (1, self._write_zeroes),
            (2, self._flush),
            (1, self._parallel),
            (1, self._create),
            (2, self._snapshot),
            (1, self._clone),
            (2, self._delete),
            (1, self._resize),
            (1, self._inflate),
            (1, self._decouple),
            (1, self._detach),
            (1, self._set_parent),
            (1, self._rename),
            (3, self._set_xattr),
            (2, self._register),
        ]
        self._create()
        choices = [action for weight, action in actions for _ in range(weight)]
        while len(self.history.steps) < steps:
            self.chance.choice(choices)()

    # -- one step

    def _step(
        self,
        text: str,
        durable: bool,
        shape: bool,
        action: Callable[[], object],
        *,
        view: bool = True,
    ) -> None:
        number = len(self.history.steps)
        self.device.mark(2 * number)
        try:
            action()
        except OSError as error:
            # It may have changed nothing, so it promises nothing.
            text, durable, shape = f"{text}: {error}", False, False
        if view:
            seen = view_of(self.store)
            self.device.mark(2 * number + 1)
        else:
            seen = self.history.steps[-1].view
        self.history.steps.append(Step(text, durable, shape, seen))

    def _volume(self) -> Lvol | None:
        writable = [lvol for lvol in self.store.lvols if not lvol.is_read_only and lvol.size]
        return self.chance.choice(writable) if writable else None

    def _snapshot_lvol(self) -> Lvol | None:
        snapshots = self.store.snapshots
        return self.chance.choice(snapshots) if snapshots else None

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _content(self, sectors: int) -> bytes:
        words = array("Q")
        for _ in range(sectors):
            self._number += 1
            words.extend([self._number] * (SECTOR // 8))
        return words.tobytes()

    def _range(self, lvol: Lvol) -> tuple[int, int]:
        sectors = lvol.size // SECTOR
        per_cluster = CLUSTER // SECTOR
        start = self.chance.randrange(sectors)
        if self.chance.random() < 0.3:
            start = start // per_cluster * per_cluster
            count = per_cluster * self.chance.randrange(1, 3)
        else:
            count = self.chance.randrange(1, 3 * per_cluster // 2)
        return start, min(count, sectors - start)

    # -- data

    def _write(self) -> None:
        lvol = self._volume()
        if lvol is None:
            return
        start, count = self._range(lvol)
        content = self._content(count)

        def write_and_read() -> None:
            lvol.pwrite(content, start * SECTOR)
            if lvol.pread(len(content), start * SECTOR) != content:
                raise AssertionError(f"{lvol.name} does not show what was written to it")

        self._step(f"write {count} sectors at {start} of {lvol.name}", False, False, write_and_read)

    def _unmap(self) -> None:
        lvol = self._volume()
        if lvol is None:
            return
        start, count = self._range(lvol)
        self._step(
            f"unmap {count} sectors at {start} of {lvol.name}",
            False,
            False,
            lambda: lvol.unmap(start * SECTOR, count * SECTOR),
        )

    def _write_zeroes(self) -> None:
        lvol = self._volume()
        if lvol is None:
            return
        start, count = self._range(lvol)
        self._step(
            f"zero {count} sectors at {start} of {lvol.name}",
            False,
            False,
            lambda: lvol.write_zeroes(start * SECTOR, count * SECTOR),
        )

    def _flush(self) -> None:
        self._step("flush", True, False, self.store.flush)

    def _parallel(self) -> None:
        """Writers and flushers at the same time, each writer on sectors of its own."""
        lvols = [lvol for lvol in self.store.lvols if not lvol.is_read_only and lvol.size]
        if not lvols:
            return
        plans = []
        for number in range(3):
            lvol = self.chance.choice(lvols)
            sectors = range(number, lvol.size // SECTOR, 3)
            picked = self.chance.sample(sectors, min(6, len(sectors)))
            plans.append((lvol, [(sector, self._content(1)) for sector in picked]))

        def work(lvol: Lvol, writes: list[tuple[int, bytes]]) -> None:
            for sector, content in writes:
                lvol.pwrite(content, sector * SECTOR)
                lvol.flush()

        def run() -> None:
            errors: list[OSError] = []

            def guarded(lvol: Lvol, writes: list[tuple[int, bytes]]) -> None:
                try:
                    work(lvol, writes)
                except OSError as error:
                    errors.append(error)

            threads = [threading.Thread(target=guarded, args=plan) for plan in plans]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.store.flush()
            if errors:
                raise errors[0]

        self._step("parallel writes and flushes", True, False, run)

    # -- shape

    def _create(self) -> None:
        name, thick = self._name("v"), self.chance.random() < 0.2
        self._step(
            f"create {'thick' if thick else 'thin'} {name}",
            True,
            True,
            lambda: self.store.create_volume(name, VOLUME_CLUSTERS * CLUSTER, thick=thick),
        )

    def _snapshot(self) -> None:
        lvol = self._volume()
        if lvol is not None:
            name = self._name("s")
            self._step(f"snapshot {lvol.name} {name}", True, True, lambda: lvol.snapshot(name))

    def _clone(self) -> None:
        lvol = self._snapshot_lvol()
        if lvol is not None:
            name = self._name("c")
            self._step(f"clone {lvol.name} {name}", True, True, lambda: lvol.clone(name))

    def _delete(self) -> None:
        # Mostly those that can go, so that the store does not fill up.
        lvols = [lvol for lvol in self.store.lvols if len(lvol.children) < 2]
        if lvols:
            lvol = self.chance.choice(lvols)
            self._step(f"delete {lvol.name}", True, True, lvol.delete)

    def _resize(self) -> None:
        lvol = self._volume()
        if lvol is not None:
            sizes = [n * CLUSTER for n in range(1, 2 * VOLUME_CLUSTERS) if n != lvol.num_clusters]
            size = self.chance.choice(sizes)
            self._step(f"resize {lvol.name} {size}", True, True, lambda: lvol.resize(size))

    def _inflate(self) -> None:
        lvol = self._volume()
        if lvol is not None:
            self._step(f"inflate {lvol.name}", True, True, lvol.inflate)

    def _decouple(self) -> None:
        lvol = self._volume()
        if lvol is not None:
            self._step(f"decouple {lvol.name}", True, True, lvol.decouple)

    def _detach(self) -> None:
        lvol = self._volume()
        if lvol is not None:
            self._step(f"detach {lvol.name}", True, True, lvol.detach)

    def _set_parent(self) -> None:
        lvol, parent = self._volume(), self._snapshot_lvol()
        if lvol is not None and parent is not None:
            self._step(
                f"set parent of {lvol.name} to {parent.name}",
                True,
                True,
                lambda: lvol.set_parent(parent),
            )

    def _rename(self) -> None:
        if self.store.lvols:
            lvol, name = self.chance.choice(self.store.lvols), self._name("r")
            self._step(f"rename {lvol.name} {name}", True, True, lambda: lvol.rename(name))

    def _set_xattr(self) -> None:
        lvol = self._volume()
        if lvol is not None:
            value = self.chance.randbytes(self.chance.choice([3, 3000, 3000]))
            key = f"key{self.chance.randrange(3)}"
            self._step(
                f"set {len(value)} bytes of xattr {key} of {lvol.name}",
                True,
                True,
                lambda: lvol.set_xattr(key, value),
            )

    def _register(self) -> None:
        lvol, algorithm = self._snapshot_lvol(), self.chance.choice(["xxh3", "crc64"])
        if lvol is None:
            return
        wanted = None
        if self.chance.random() < 0.3:
            first = self.chance.randrange(lvol.num_clusters)
            wanted = [range(first, lvol.num_clusters)]

        def register() -> None:
            job = checksums.register(lvol, wanted, algorithm=algorithm)
            job.wait()
            job.raise_if_failed()

        self._step(f"register {algorithm} of {lvol.name}", True, True, register)
