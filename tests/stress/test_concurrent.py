"""Everything at once on shared volumes: data from many threads, and the tree changed meanwhile.

A block of 4 KiB is always one number repeated, and belongs to one writer thread, so that what it
may show is known at any time. LVOLFS_STRESS_SECONDS (default 8), LVOLFS_STRESS_SEED.
"""

import errno
import os
import random
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.delta import checksums, copy
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from tests.stress.watchdog import Watchdog, join_all

SECONDS = float(os.environ.get("LVOLFS_STRESS_SECONDS", "8"))
SEED = int(os.environ.get("LVOLFS_STRESS_SEED", "1"))
CLUSTER = 64 << 10
BLOCK = 4096
CLUSTERS = 24
BLOCKS = CLUSTERS * CLUSTER // BLOCK
WRITERS = 4
# What a change may be refused with, for want of room or because another holds the lvol.
REFUSALS = {errno.EBUSY, errno.ENOSPC}


def block(number: int) -> bytes:
    return struct.pack("<Q", number) * (BLOCK // 8)


def numbers(content: bytes) -> list[int]:
    """Of each block; a block with two numbers in it is torn."""
    found = []
    for at in range(0, len(content), BLOCK):
        piece = content[at : at + BLOCK]
        (number,) = struct.unpack_from("<Q", piece)
        assert piece == block(number), f"block {at // BLOCK} is torn"
        found.append(number)
    return found


class Shared:
    """Two volumes, the number that each of their blocks shows, and who may write it."""

    def __init__(self, store: Lvstore, watchdog: Watchdog, end: float) -> None:
        self.store = store
        self.watchdog = watchdog
        self.end = end
        self.volumes = [store.create_volume(f"v{n}", CLUSTERS * CLUSTER) for n in range(2)]
        # A number never comes twice, and grows in every block but for zeros.
        self.shown = [[0] * BLOCKS for _ in self.volumes]
        self.failures: list[BaseException] = []

    def worker(self, step: Callable[[random.Random], None], seed: int) -> Callable[[], None]:
        def run() -> None:
            chance = random.Random(seed)
            try:
                while time.monotonic() < self.end and not self.failures:
                    step(chance)
                    self.watchdog.progress()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                self.failures.append(error)

        return run


class Writer:
    """Writes, unmaps and reads back blocks of its own in both volumes."""

    def __init__(self, shared: Shared, which: int) -> None:
        self.shared = shared
        self.which = which
        self.number = which + 1

    def step(self, chance: random.Random) -> None:
        which = chance.randrange(2)
        volume, shown = self.shared.volumes[which], self.shared.shown[which]
        at = chance.randrange(BLOCKS // WRITERS) * WRITERS + self.which
        kind = chance.random()
        if kind < 0.5:
            self.number += WRITERS
            volume.pwrite(block(self.number), at * BLOCK)
            shown[at] = self.number
        elif kind < 0.6:
            volume.unmap(at * BLOCK, BLOCK)
            shown[at] = 0
        elif kind < 0.7:
            volume.write_zeroes(at * BLOCK, BLOCK)
            shown[at] = 0
        elif kind < 0.73:
            volume.flush()
        assert volume.pread(BLOCK, at * BLOCK) == block(shown[at])


class Changer:
    """Snapshots, clones, deletes, checksums and copies; a snapshot never changes."""

    def __init__(self, shared: Shared, name: str) -> None:
        self.shared = shared
        self.name = name
        self.count = 0
        self.contents: dict[str, bytes] = {}

    def _new_name(self) -> str:
        self.count += 1
        return f"{self.name}{self.count}"

    def _compare(self, name: str) -> None:
        lvol = self.shared.store.get(name)
        assert lvol.pread(lvol.size, 0) == self.contents[name], f"snapshot {name} has changed"

    def step(self, chance: random.Random) -> None:
        try:
            self._one(chance)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise

    def _one(self, chance: random.Random) -> None:
        store = self.shared.store
        names = sorted(self.contents)
        kind = chance.random()
        if len(names) < 2 or (kind < 0.3 and len(names) < 6):
            name = self._new_name()
            snapshot = chance.choice(self.shared.volumes).snapshot(name)
            self.contents[name] = snapshot.pread(snapshot.size, 0)
            numbers(self.contents[name])
            return
        name = chance.choice(names)
        lvol = store.get(name)
        if kind < 0.55:
            lvol.delete()
            del self.contents[name]
        elif kind < 0.7:
            self._clone(lvol, name)
        elif kind < 0.8:
            checksums.register(lvol).wait()
        elif kind < 0.9:
            self._copy(lvol, name)
        else:
            self._compare(name)

    def _clone(self, lvol: Lvol, name: str) -> None:
        clone = lvol.clone(self._new_name())
        clone.pwrite(block(1), 0)
        expected = block(1) + self.contents[name][BLOCK:]
        assert clone.pread(clone.size, 0) == expected
        clone.delete()

    def _copy(self, lvol: Lvol, name: str) -> None:
        target = self.shared.store.create_volume(self._new_name(), lvol.size)
        try:
            job = copy.shallow_copy(lvol, target, deep=True)
            job.wait()
            assert job.state == "complete", job.error
            assert target.pread(target.size, 0) == self.contents[name]
        finally:
            target.delete()

    def finish(self) -> None:
        for name in self.contents:
            self._compare(name)


@pytest.mark.timeout(120 + SECONDS)
def test_everything_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    watchdog = Watchdog(stall=40)
    with (
        Lvstore.create(path, size=96 << 20, cluster_size=CLUSTER) as store,
        watchdog.watching(),
    ):
        shared = Shared(store, watchdog, time.monotonic() + SECONDS)
        writers = [Writer(shared, which) for which in range(WRITERS)]
        changers = [Changer(shared, name) for name in ("a", "b")]
        threads = [
            threading.Thread(target=shared.worker(each.step, SEED * 100 + n), name=repr(each))
            for n, each in enumerate([*writers, *changers])
        ]
        for thread in threads:
            thread.start()
        join_all(threads, watchdog)
        if shared.failures:
            raise shared.failures[0]
        for changer in changers:
            changer.finish()
        for volume, shown in zip(shared.volumes, shared.shown, strict=True):
            assert numbers(volume.pread(volume.size, 0)) == shown
        taken = sum(changer.count for changer in changers)
        assert taken > 5
        print(f"{watchdog.steps} steps, {taken} snapshots, clones and copies")
    assert check_store(path) == []
    with Lvstore.open(path) as store:
        for n, shown in enumerate(shared.shown):
            volume = store.get(f"v{n}")
            assert numbers(volume.pread(volume.size, 0)) == shown
        for changer in changers:
            for name, content in changer.contents.items():
                lvol = store.get(name)
                assert lvol.pread(lvol.size, 0) == content
