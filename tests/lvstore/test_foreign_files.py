"""Files that are no store, or that have shrunk, and the whole metadata region under random
damage: always a clear error or an open store whose healthy lvols read as before."""

import errno
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvolfs.blobstore.check import check_store
from lvolfs.blobstore.errors import FormatError
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (bytes(1 << 20), "it holds zeros"),
        (os.urandom(100), "only 100 of 4096 bytes"),
        (b"\x7fELF" + os.urandom(10000), "it holds data"),
        (b"QFI\xfb" + bytes(10000), "it holds a qcow2 image"),
    ],
)
def test_no_store(tmp_path, content, text):
    path = tmp_path / "file"
    path.write_bytes(content)
    for read_only in (True, False):
        with pytest.raises(FormatError, match=text) as info:
            Lvstore.open(str(path), read_only=read_only)
        assert info.value.errno == errno.EILSEQ
        assert str(path) in str(info.value)
    assert path.read_bytes() == content
    if content:
        assert check_store(str(path))[0].severity == "error"


def test_no_regular_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Lvstore.open(str(tmp_path / "missing"))
    with pytest.raises(IsADirectoryError):
        Lvstore.open(str(tmp_path))
    fifo = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(fifo))
        with pytest.raises(OSError):  # noqa: PT011
            Lvstore.open(str(fifo))


def test_ext4_file_system(tmp_path):
    path = tmp_path / "fs"
    path.touch()
    os.truncate(path, 8 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    with pytest.raises(FormatError, match="an ext2/3/4 file system"):
        Lvstore.open(str(path))


@pytest.fixture
def healthy(make_store):
    store = make_store()
    volume = store.create_volume("v", 100 * CLUSTER)
    volume.pwrite(random.Random(1).randbytes(50 * CLUSTER), 0)
    store.close()
    return Path(store.path)


@pytest.mark.parametrize("size", [4096, 1 << 20, (16 << 20) - 4096])
def test_truncated_store(healthy, tmp_path, size):
    copy = tmp_path / "copy"
    shutil.copyfile(healthy, copy)
    os.truncate(copy, size)
    with pytest.raises(FormatError, match="it was truncated"):
        Lvstore.open(str(copy))
    assert copy.stat().st_size == size


def test_file_that_shrinks_while_open(healthy, tmp_path):
    copy = tmp_path / "copy"
    shutil.copyfile(healthy, copy)
    store = Lvstore.open(str(copy))
    volume = store.get("v")
    first = volume.pread(1000, 0)
    os.truncate(copy, 3 << 20)
    assert volume.pread(1000, 0) == first
    with pytest.raises(OSError, match="cannot read lvol 'v'") as info:
        volume.pread(50 * CLUSTER, 0)
    assert info.value.errno == errno.EIO
    with pytest.raises(OSError, match="has shrunk"):
        store.grow()
    store.close()
    os.truncate(copy, 16 << 20)
    with Lvstore.open(str(copy)) as store:
        assert store.get("v").pread(1000, 0) == first


class Tangled:
    """Where the store is, what its lvols hold, and where its metadata end."""

    def __init__(self, path, content, end):
        self.path, self.content, self.end = path, content, end

    def __repr__(self):
        return f"Tangled({self.path})"


@pytest.fixture(scope="module")
def tangled(tmp_path_factory):
    """A store with a bit of everything, and what its lvols hold."""
    path = tmp_path_factory.mktemp("tangled") / "image"
    chance = random.Random(7)
    with Lvstore.create(
        str(path), size=4 << 20, cluster_size=8192, block_size=512, md_ratio=20
    ) as store:
        for name in ("a", "b"):
            volume = store.create_volume(name, 700 * 8192)
            for _ in range(3):
                for _ in range(5):
                    volume.pwrite(chance.randbytes(9000), chance.randrange(690 * 8192))
                volume.snapshot(f"{name}{chance.randrange(10**6)}", {"x": bytes(3000)})
        store.snapshots[0].clone("clone").set_xattr("y", bytes(3500))
        store.create_volume("thick", 20 * 8192, thick=True)
        content = {lvol.name: lvol.pread(lvol.size, 0) for lvol in store.lvols}
        end = store.engine.metadata_clusters * 8192
    return Tangled(path, content, end)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    damage=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=6
    ),
    unclean=st.booleans(),
)
def test_flipped_bits_in_the_metadata(tangled, tmp_path, damage, unclean):
    path, content, end = tangled.path, tangled.content, tangled.end
    copy = tmp_path / "copy"
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        data = bytearray(file.read(end))
        used = [i for i in range(4096, end) if data[i]]
        for where, bit in damage:
            data[used[int(where * len(used))]] ^= 1 << bit
        file.seek(0)
        file.write(data)
    if unclean:
        # masks of another time: all zeros, with the flag still set
        with copy.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(3 * 4096))
    check_store(str(copy))
    for read_only in (True, False):
        with Lvstore.open(str(copy), read_only=read_only) as store:
            shown = {lvol.name for lvol in store.lvols}
            assert shown <= set(content)
            # to be lost without a word it takes more than one flipped bit
            lost = len(content) - len(shown) - len(store.damaged)
            assert lost <= (len(damage) if unclean else len(damage) // 2)
            for lvol in store.lvols:
                assert lvol.pread(lvol.size, 0) == content[lvol.name]
            if not read_only and store.free_clusters > 3:
                store.create_volume("new", 8192).pwrite(b"x" * 8192, 0)
    with Lvstore.open(str(copy)) as store:
        for lvol in store.lvols:
            if lvol.name != "new":
                assert lvol.pread(lvol.size, 0) == content[lvol.name]
