"""What the recording says is what a block device gets: the power-cut replay is as good as that.

The device is a loop device, whose medium is a file that can be looked at beside it.
"""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.crash.write_log import FLUSH, Entry, read_logs
from tests.loop_device import loop_device

CLUSTER = 64 << 10
PAGE = 4096
SIZE = 8 << 20


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    path = tmp_path / "medium"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture(params=["buffered", "direct"])
def loop(request: pytest.FixtureRequest, medium: Path) -> Iterator[str]:
    """direct: the loop device bypasses the page cache of its file, as a disk has none."""
    with loop_device(medium, *(["--direct-io=on"] if request.param == "direct" else [])) as device:
        yield device


def flushes_of(loop: str) -> int:
    """Cache flushes that the block device has completed, as the kernel counts them."""
    return int(Path("/sys/block", Path(loop).name, "stat").read_text().split()[15])


def image_of(base: bytes, entries: list[Entry]) -> bytes:
    """The disk after all of them."""
    image = bytearray(base)
    for entry in entries:
        if entry.is_request:
            entry.put(image, 0, entry.sectors)
    return bytes(image)


def differing(base: bytes, entries: list[Entry], medium: Path) -> list[int]:
    """The pages in which the medium is not what was made durable, nor being written since."""
    last = max((i for i, entry in enumerate(entries) if entry.kind == FLUSH), default=-1)
    durable, now = image_of(base, entries[: last + 1]), medium.read_bytes()
    since = {
        page
        for entry in entries[last + 1 :]
        for page in range(entry.offset // PAGE, -(-(entry.offset + entry.length) // PAGE))
    }
    return [
        page
        for page in range(SIZE // PAGE)
        if page not in since
        and durable[page * PAGE : (page + 1) * PAGE] != now[page * PAGE : (page + 1) * PAGE]
    ]


def life(store: Lvstore) -> Iterator[Callable[[], object]]:
    """Steps after which everything written before is durable."""
    chance = random.Random(1)
    v = store.create_volume("v", 32 * CLUSTER)

    def write(count: int) -> Callable[[], object]:
        def step() -> None:
            for _ in range(count):
                length = chance.choice((1, 511, 4096, 3 * CLUSTER))
                v.pwrite(chance.randbytes(length), chance.randrange(v.size - length))
            v.flush()

        return step

    yield write(1)
    yield write(20)
    yield lambda: v.snapshot("s")
    yield write(20)
    yield lambda: (v.unmap(0, 4 * CLUSTER), v.flush())
    yield lambda: store.create_volume("thick", 5 * CLUSTER, thick=True)
    yield lambda: v.resize(40 * CLUSTER)
    yield write(10)
    yield lambda: store.get("s").clone("c")
    yield lambda: v.set_xattr("long", bytes(3000))
    yield lambda: store.get("c").delete()
    yield lambda: store.get("s").delete()
    yield lambda: store.get("thick").delete()
    yield store.flush


@pytest.mark.needs_loop_devices
def test_a_loop_device_gets_what_is_recorded(loop: str, medium: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Lvstore.create(loop, cluster_size=CLUSTER) as store:
        store.engine.stop_flusher()
        store.flush()
        subprocess.run(["sync", loop], check=True)
        device = store.engine.device
        assert device.is_block
        before, base = flushes_of(loop), medium.read_bytes()
        device.record(str(log))
        flushed = 0
        for step in life(store):
            step()
            store.engine.settle()
            entries = read_logs([log])
            assert differing(base, entries, medium) == []
            flushed = sum(entry.kind == FLUSH for entry in entries)
            assert flushes_of(loop) - before == flushed
        assert flushed > 20
        # It is the flush that brings it there: without one the medium is behind the recording.
        before_that = read_logs([log])
        store.get("v").pwrite(b"not yet" * 1000, 5)
        entries = read_logs([log])
        assert len(entries) > len(before_that)
        assert image_of(base, entries) != medium.read_bytes()
        store.get("v").flush()
        assert differing(base, read_logs([log]), medium) == []
    assert check_store(str(medium)) == []
