"""A file or block device that becomes smaller under an open store: told by name at the next flush
at the latest, nothing is acknowledged after it, and what is left is there when it is long again."""

import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.loop_device import loop_device

CLUSTER = 64 << 10
MIB = 1 << 20
SIZE = 16 * MIB


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(4 * CLUSTER)


class Backing:
    """path: what the store is opened on; file: where its bytes are."""

    def __init__(self, path: Path, file: Path, refresh: Callable[[], None]) -> None:
        self.path, self.file, self._refresh = path, file, refresh

    def resize(self, size: int) -> None:
        os.truncate(self.file, size)
        self._refresh()


def set_capacity(device: str) -> None:
    """The loop device looks at the size of its file again."""
    subprocess.run(["losetup", "--set-capacity", device], check=True)


@pytest.fixture(params=["file", pytest.param("loop device", marks=pytest.mark.needs_loop_devices)])
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backing]:
    file = tmp_path / "store"
    file.touch()
    os.truncate(file, SIZE)
    if request.param == "file":
        yield Backing(file, file, lambda: None)
        return
    with loop_device(file) as device:
        yield Backing(Path(device), file, lambda: set_capacity(device))


def filled(backing: Backing) -> Lvstore:
    """`first` lies at the beginning, `last` at the end; both are durable."""
    store = Lvstore.create(str(backing.path), cluster_size=CLUSTER)
    first = store.create_volume("first", 8 * CLUSTER)
    first.pwrite(content(1), 0)
    rest = store.create_volume("rest", (store.free_clusters - 4) * CLUSTER, thick=True)
    last = store.create_volume("last", 8 * CLUSTER)
    last.pwrite(content(2), 0)
    rest.delete()
    store.flush()
    store.engine.stop_flusher()
    return store


def refused(call: Callable[[], object], path: Path, code: int) -> None:
    with pytest.raises(OSError, match=rf"{path}' ?has become smaller|{path} has become") as info:
        call()
    assert info.value.errno == code


def test_a_store_that_is_cut_off(backing: Backing) -> None:
    store = filled(backing)
    first, last = store.get("first"), store.get("last")
    first.pwrite(b"lost", 0)
    backing.resize(SIZE // 2)
    refused(lambda: last.pread(4 * CLUSTER, 0), backing.path, errno.EIO)
    assert first.pread(4 * CLUSTER - 4, 4) == content(1)[4:]
    refused(store.flush, backing.path, errno.ENXIO)
    for call in (
        first.flush,
        lambda: first.pwrite(b"more", 0),
        lambda: store.create_volume("w", CLUSTER),
        lambda: first.snapshot("s"),
        store.grow,
        store.close,
    ):
        with pytest.raises(OSError, match=r"[a-z]"):
            call()
    assert store.closed
    with pytest.raises(OSError, match=rf"{backing.path}.*the device only.*truncated"):
        Lvstore.open(str(backing.path))
    assert [f.object for f in check_store(str(backing.path))] == ["superblock"]

    # Long again, say after the copy that was to be made of it: `last` has holes.
    backing.resize(SIZE)
    with Lvstore.open(str(backing.path)) as store:
        assert store.damaged == []
        assert store.get("first").pread(4 * CLUSTER - 4, 4) == content(1)[4:]
    assert check_store(str(backing.path)) == []


def test_writes_behind_the_new_end(backing: Backing) -> None:
    """A block device refuses them as if it were full; that is not what is wrong."""
    store = filled(backing)
    last = store.get("last")
    backing.resize(SIZE // 2)
    if store.engine.device.is_block:
        refused(lambda: last.pwrite(b"x" * 4096, 0), backing.path, errno.ENXIO)
        with pytest.raises(OSError, match="flush"):
            last.flush()
    else:
        last.pwrite(b"x" * 4096, 0)
        refused(last.flush, backing.path, errno.ENXIO)
    with pytest.raises(OSError, match=r"[a-z]"):
        store.close()
    backing.resize(SIZE)
    with Lvstore.open(str(backing.path)) as store:
        assert store.get("first").pread(4 * CLUSTER, 0) == content(1)
    assert check_store(str(backing.path)) == []


def test_a_store_that_shrinks_by_nothing_it_needs(backing: Backing) -> None:
    """It is refused all the same: free space that is gone would be handed out."""
    store = filled(backing)
    backing.resize(SIZE - 2 * CLUSTER)
    store.get("first").pwrite(b"x", 0)
    refused(store.flush, backing.path, errno.ENXIO)
    with pytest.raises(OSError, match="flush"):
        store.close()
