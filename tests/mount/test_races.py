"""The lane under everything at once: data from many threads, the tree changed meanwhile.

`scripts/sanitized thread -m pytest tests/mount/test_races.py` has the daemon run under
ThreadSanitizer: a report fails the test, as its exit status and its log. LVOLFS_RACES_SECONDS
(default 3) for each transport.
"""

import contextlib
import errno
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs import ioctls
from lvolfs.blobstore.check import check_store
from tests.mount.conftest import MIB, Mounted, both_transports
from tests.mount.fallocate import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

SECONDS = float(os.environ.get("LVOLFS_RACES_SECONDS", "3"))
CLUSTER = 64 << 10
SIZE = 4 * MIB
BLOCK = 4096
WRITERS = 3
# What a change may be refused with because another is under way, or has been faster.
REFUSALS = {
    *(errno.EBUSY, errno.ENOENT, errno.EEXIST, errno.ENODATA, errno.ENOSPC),
    *(errno.EINVAL, errno.EROFS, errno.ESTALE, errno.ENXIO),
}


class Load:
    """Threads that work on one mount until the time is over."""

    def __init__(self, mounted: Mounted, seconds: float) -> None:
        self.mounted = mounted
        self.end = time.monotonic() + seconds
        self.failures: list[BaseException] = []
        self.steps: dict[str, int] = {}
        # Kinds of them that were not only ever refused.
        self.changes: set[str] = set()
        self.volume = mounted.volumes / "v"

    def thread(self, step: Callable[[random.Random, int], None], number: int) -> threading.Thread:
        name = f"{step.__name__} {number}"
        self.steps[name] = 0

        def run() -> None:
            chance = random.Random(name)
            try:
                while time.monotonic() < self.end and not self.failures:
                    step(chance, number)
                    self.steps[name] += 1
            except BaseException as error:
                self.failures.append(error)

        return threading.Thread(target=run, name=name)

    # -- data: every writer has every WRITERS-th block of the volume for itself

    def write(self, chance: random.Random, number: int) -> None:
        block = chance.randrange(SIZE // BLOCK // WRITERS) * WRITERS + number
        content = chance.randbytes(8) * (BLOCK // 8)
        direct = os.O_DIRECT if chance.random() < 0.5 else 0
        with opened(self.volume, os.O_RDWR | direct) as file:
            kind = chance.randrange(6)
            if kind == 5:
                content = bytes(BLOCK)
                mode = chance.choice((KEEP_SIZE | PUNCH_HOLE, KEEP_SIZE | ZERO_RANGE))
                fallocate(file, mode, block * BLOCK, BLOCK)
            else:
                with mmap.mmap(-1, BLOCK) as aligned:
                    aligned[:] = content
                    os.pwritev(file, [aligned], block * BLOCK)
            if kind == 4:
                os.fsync(file)
            with mmap.mmap(-1, BLOCK) as aligned:
                assert os.preadv(file, [aligned], block * BLOCK) == BLOCK
                assert aligned[:] == content, f"block {block} is not what was written"

    def look(self, chance: random.Random, _: int) -> None:
        """Reads that cross what the writers do, holes, block counts, status files."""
        with opened(self.volume, os.O_RDONLY) as file:
            os.pread(file, 256 << 10, chance.randrange(SIZE))
            os.fstat(file)
            with self._or_refused("seek"):
                os.lseek(file, chance.randrange(SIZE), os.SEEK_DATA)
            ioctls.call(file, ioctls.Info())
            ioctls.call(file, ioctls.Fragmap(start=0, count=SIZE // CLUSTER))
        for name in ("store.json", "lvols.json", "jobs.json", "metrics"):
            (self.mounted.status / name).read_bytes()

    # -- the tree

    def change(self, chance: random.Random, number: int) -> None:
        """A snapshot with its checksums and a clone, and the end of both."""
        snapshot = self.mounted.snapshots / f"s{number}"
        clone = self.mounted.volumes / f"c{number}"
        with self._or_refused("snapshot"):
            os.setxattr(self.volume, "user.lvolfs.snapshot", snapshot.name.encode())
        with self._or_refused("register"):
            os.setxattr(snapshot, "user.lvolfs.checksum.register", b"")
        with self._or_refused("clone"):
            os.setxattr(snapshot, "user.lvolfs.clone", clone.name.encode())
        with self._or_refused("write"), clone.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"c" * BLOCK, chance.randrange(SIZE - BLOCK))
            os.ftruncate(file.fileno(), chance.randrange(1, 5) * MIB)
        with self._or_refused("copy"):
            destination = str(self.mounted.directory / f"copy{number}")
            os.setxattr(snapshot, "user.lvolfs.copy.start", destination.encode())
        if chance.random() < 0.5:
            with self._or_refused("cancel"):
                os.setxattr(snapshot, "user.lvolfs.copy.cancel", b"")
        with self._or_refused("delete"):
            clone.unlink()
        with self._or_refused("merge"):
            snapshot.unlink()

    @contextlib.contextmanager
    def _or_refused(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
        else:
            self.changes.add(what)


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@both_transports
@pytest.mark.timeout(SECONDS * 4 + 300)
def test_everything_at_once(
    make_mounted: Callable[..., Mounted], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The daemon has the sanitizer in it; programs that are started need none.
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    mounted = make_mounted(size=64 * MIB, cluster_size=CLUSTER)
    (mounted.volumes / "v").touch()
    os.truncate(mounted.volumes / "v", SIZE)
    for number in range(2):
        (mounted.directory / f"copy{number}").touch()
        os.truncate(mounted.directory / f"copy{number}", SIZE)
    load = Load(mounted, SECONDS)
    threads = [load.thread(load.write, number) for number in range(WRITERS)]
    threads += [load.thread(load.look, number) for number in range(2)]
    threads += [load.thread(load.change, number) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS * 4 + 200)
        assert not thread.is_alive(), f"{thread.name} stands still"
    for failure in load.failures:
        raise failure
    assert all(load.steps.values()), load.steps
    assert load.changes >= {"snapshot", "clone"}
    mounted.unmount()
    assert "Sanitizer" not in mounted.log_text(), mounted.log_text()
    assert check_store(str(mounted.store_path)) == []
