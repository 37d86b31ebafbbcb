"""Random sequences of file operations against a bytearray, snapshots included.

A failure names its seed; LVOLFS_SEED=N runs just that one, LVOLFS_OPERATIONS=N makes it longer.
"""

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted, both_transports
from tests.mount.fallocate import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

CLUSTER = 65536
MAX_CLUSTERS = 24
SEEDS = [int(os.environ["LVOLFS_SEED"])] if "LVOLFS_SEED" in os.environ else [1, 2, 3]
OPERATIONS = int(os.environ.get("LVOLFS_OPERATIONS", "300"))


class Run:
    """One volume file and what must be in it."""

    def __init__(self, mounted: Mounted, seed: int) -> None:
        self.mounted = mounted
        self.random = random.Random(seed)
        self.file = mounted.volumes / "v"
        self.file.touch()
        self.model = bytearray()
        self.snapshots: dict[Path, bytes] = {}
        self.descriptor = os.open(self.file, os.O_RDWR)

    def close(self) -> None:
        os.close(self.descriptor)

    def _grow(self, end: int) -> None:
        size = -(-end // CLUSTER) * CLUSTER
        if size > len(self.model):
            self.model += bytes(size - len(self.model))

    def _range(self, most: int = 3 * CLUSTER, *, inside: bool = False) -> tuple[int, int]:
        """Mostly odd places, sometimes cluster boundaries, where mistakes live."""
        limit = len(self.model) if inside else MAX_CLUSTERS * CLUSTER
        if self.random.random() < 0.3:
            offset = self.random.randrange(0, max(1, limit // CLUSTER)) * CLUSTER
        else:
            offset = self.random.randrange(0, max(1, limit))
        length = self.random.choice([1, 511, 4096, CLUSTER, self.random.randrange(1, most)])
        return offset, max(0, min(length, limit - offset))

    def read(self) -> None:
        offset, length = self._range()
        assert os.pread(self.descriptor, length, offset) == self.model[offset : offset + length]

    def write(self) -> None:
        offset, length = self._range()
        if not length:
            return
        data = self.random.randbytes(length)
        assert os.pwrite(self.descriptor, data, offset) == length
        self._grow(offset + length)
        self.model[offset : offset + length] = data

    def punch(self) -> None:
        offset, length = self._range()
        if length:
            fallocate(self.descriptor, PUNCH_HOLE | KEEP_SIZE, offset, length)
            end = min(offset + length, len(self.model))
            if offset < end:
                self.model[offset:end] = bytes(end - offset)

    def zero(self) -> None:
        offset, length = self._range()
        if length:
            fallocate(self.descriptor, ZERO_RANGE, offset, length)
            self._grow(offset + length)
            self.model[offset : offset + length] = bytes(length)

    def allocate(self) -> None:
        offset, length = self._range()
        if length:
            fallocate(self.descriptor, 0, offset, length)
            self._grow(offset + length)

    def truncate(self) -> None:
        size = self.random.randrange(0, MAX_CLUSTERS * CLUSTER)
        os.ftruncate(self.descriptor, size)
        rounded = -(-size // CLUSTER) * CLUSTER
        del self.model[rounded:]
        self._grow(rounded)

    def copy(self) -> None:
        source, length = self._range(inside=True)
        target = self.random.randrange(0, (MAX_CLUSTERS - 4) * CLUSTER)
        if not length or abs(source - target) < length:
            return  # the kernel refuses overlapping ranges of one file
        data = bytes(self.model[source : source + length])
        done = 0
        while done < length:
            copied = os.copy_file_range(
                self.descriptor, self.descriptor, length - done, source + done, target + done
            )
            assert copied
            done += copied
        self._grow(target + length)
        self.model[target : target + length] = data

    def map_write(self) -> None:
        offset, length = self._range(inside=True)
        if not length:
            return
        os.fstat(self.descriptor)
        with mmap.mmap(self.descriptor, len(self.model)) as mapping:
            assert mapping[offset : offset + length] == self.model[offset : offset + length]
            data = self.random.randbytes(length)
            mapping[offset : offset + length] = data
            if self.random.random() < 0.5:
                mapping.flush()
        self.model[offset : offset + length] = data

    def reopen(self) -> None:
        os.fsync(self.descriptor)
        os.close(self.descriptor)
        self.descriptor = os.open(self.file, os.O_RDWR)

    def snapshot(self) -> None:
        if len(self.snapshots) < 4:
            os.fsync(self.descriptor)  # dirty pages of mappings belong in it
            name = f"s{self.random.randrange(1 << 40)}"
            os.setxattr(self.file, "user.lvolfs.snapshot", name.encode())
            self.snapshots[self.mounted.snapshots / name] = bytes(self.model)
        else:
            victim = self.random.choice(sorted(self.snapshots))
            victim.unlink()
            del self.snapshots[victim]

    def holes(self) -> None:
        """Whatever is called a hole reads as zeros."""
        offset = 0
        while offset < len(self.model):
            hole = os.lseek(self.descriptor, offset, os.SEEK_HOLE)
            try:
                offset = os.lseek(self.descriptor, hole, os.SEEK_DATA)
            except OSError:
                offset = len(self.model)
            assert not any(self.model[hole:offset])

    def check(self) -> None:
        assert os.fstat(self.descriptor).st_size == len(self.model)
        assert os.pread(self.descriptor, len(self.model) + 1, 0) == self.model
        for path, content in self.snapshots.items():
            assert path.read_bytes() == content, path.name


@both_transports
@pytest.mark.parametrize("options", ["", "page_cache"])
@pytest.mark.parametrize("seed", SEEDS)
def test_like_a_bytearray(make_mounted: Callable[..., Mounted], seed: int, options: str) -> None:
    mounted = make_mounted(size=64 << 20, cluster_size=CLUSTER, options=options)
    subject = Run(mounted, seed)
    steps: list[Callable[[], None]] = [
        *[subject.write] * 8,
        *[subject.read] * 4,
        *[subject.map_write] * 3,
        *[subject.punch] * 3,
        *[subject.copy] * 2,
        subject.zero,
        subject.allocate,
        subject.truncate,
        subject.reopen,
        subject.snapshot,
        subject.holes,
    ]
    number = 0
    try:
        for number in range(OPERATIONS):
            step = subject.random.choice(steps)
            step()
            if number % 50 == 49:
                subject.check()
        subject.check()
    except BaseException as error:
        error.add_note(f"seed {seed}, operation {number}: {step.__name__}")
        raise
    finally:
        subject.close()
    mounted.restart()
    assert subject.file.read_bytes() == subject.model
    for path, content in subject.snapshots.items():
        assert path.read_bytes() == content
