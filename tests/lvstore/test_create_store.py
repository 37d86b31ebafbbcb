"""Making stores, on what they may be made, and how they are laid out."""

import errno
import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore

MIB = 1 << 20
PAGE = 4096


def test_new_file(tmp_path):
    path = tmp_path / "new.img"
    with Lvstore.create(str(path), size=128 * MIB, name="first") as store:
        assert (store.name, store.cluster_size, store.block_size) == ("first", MIB, 4096)
        assert store.total_clusters == store.free_clusters == 127
        assert store.lvols == []
    assert path.stat().st_size == 128 * MIB
    assert path.stat().st_blocks * 512 < MIB
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0


def test_a_new_file_is_durable_when_it_is_made(tmp_path, monkeypatch):
    """Its directory is synced once the store in it is, or a power cut could take it away."""
    synced = []
    sync = os.fsync

    def note(fd):
        synced.append(os.fstat(fd).st_ino)
        with SpdkStore(path) as other:
            assert other.super_blob in other.blobs
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    path = tmp_path / "new.img"
    Lvstore.create(str(path), size=128 * MIB).close()
    assert synced == [tmp_path.stat().st_ino]


def test_geometry_is_spdks(tmp_path):
    """Values that SPDK's and Longhorn's own tests assert."""
    for size, cluster, data in ((128, 4 * MIB, 31), (1000, MIB, 996)):
        path = str(tmp_path / f"{size}.img")
        with Lvstore.create(path, size=size * MIB, cluster_size=cluster) as store:
            assert store.total_clusters == data
            assert store.total_clusters * cluster == {128: 124, 1000: 996}[size] * MIB


def test_layout_on_disk(tmp_path):
    path = str(tmp_path / "s")
    with Lvstore.create(path, size=128 * MIB, block_size=512, name="lvs_x") as store:
        uuid = store.uuid
    with SpdkStore(path) as other:
        assert (other.version, other.clean, other.super_blob) == (3, 1, 1 << 32)
        assert (other.page_mask, other.page_mask_len) == (1, 1)
        assert (other.cluster_mask, other.cluster_mask_len) == (2, 1)
        assert (other.blobid_mask, other.blobid_mask_len) == (3, 1)
        assert (other.md_start, other.md_len) == (4, 128)
        assert (other.size, other.io_unit, other.pg) == (128 * MIB, 512, 4096)
        blob = other.blobs[1 << 32]
        assert blob.flags == (4, 0, 0)
        assert blob.xattrs == {"uuid": uuid.encode() + b"\0", "name": b"lvs_x\0"}
        assert blob.clusters == []
        other.assert_consistent()


def test_room_for_a_longer_cluster_mask(tmp_path):
    """The mask of clusters may take as many pages as that of metadata pages."""
    path = str(tmp_path / "s")
    with Lvstore.create(path, size=64 * MIB, cluster_size=4096, md_ratio=60) as store:
        assert store.engine.md_len == 64 * 256 * 60 // 100
    with SpdkStore(path) as other:
        assert other.blobid_mask - other.cluster_mask >= other.page_mask_len


def test_a_file_that_is_there_is_used_whole(tmp_path):
    path = tmp_path / "there"
    path.write_bytes(b"")
    os.truncate(path, 33 * MIB)
    with Lvstore.create(str(path)) as store:
        assert store.total_clusters == 32


def test_a_shorter_file_is_extended(tmp_path):
    path = tmp_path / "there"
    path.touch()
    with Lvstore.create(str(path), size=32 * MIB) as store:
        assert store.total_clusters == 31


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (b"XFSB" + bytes(5000), "an xfs file system"),
        (bytes(0x438) + b"\x53\xef" + bytes(5000), "an ext2/3/4 file system"),
        (b"QFI\xfb" + bytes(5000), "a qcow2 image"),
        (bytes(70000) + b"something", "data"),
    ],
)
def test_refuses_what_holds_something(tmp_path, content, title):
    path = tmp_path / "held"
    path.write_bytes(content)
    with pytest.raises(OSError, match=f"{title} already") as info:
        Lvstore.create(str(path), size=32 * MIB)
    assert info.value.errno == errno.EEXIST
    assert path.read_bytes() == content
    with Lvstore.create(str(path), size=32 * MIB, force=True) as store:
        assert store.lvols == []


def test_refuses_a_store_and_names_it(store):
    path = store.path
    store.create_volume("kept", 1)
    store.close()
    with pytest.raises(OSError, match="an SPDK blobstore already"):
        Lvstore.create(path)
    with Lvstore.open(path) as again:
        assert [lvol.name for lvol in again.lvols] == ["kept"]


def test_real_file_system_is_recognized(tmp_path):
    path = tmp_path / "fs"
    path.touch()
    os.truncate(path, 8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    with pytest.raises(OSError, match="an ext2/3/4 file system"):
        Lvstore.create(str(path))


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"size": 0}, errno.EINVAL, "must be positive"),
        ({"size": -5}, errno.EINVAL, "must be positive"),
        ({"size": 1000}, errno.EINVAL, "at least one cluster"),
        ({"size": MIB}, errno.ENOSPC, "metadata would take all"),
        ({"size": 64 * MIB, "cluster_size": 5000}, errno.EINVAL, "multiple of 4096"),
        ({"size": 64 * MIB, "cluster_size": 0}, errno.EINVAL, "multiple of 4096"),
        ({"size": 64 * MIB, "cluster_size": -4096}, errno.EINVAL, "multiple of 4096"),
        ({"size": 64 * MIB, "cluster_size": 1 << 30}, errno.EINVAL, "at least one cluster"),
        ({"size": 64 * MIB, "cluster_size": 1 << 32}, errno.EINVAL, "less than 4 GiB"),
        ({"size": 64 * MIB, "block_size": 1024}, errno.EINVAL, "512 or 4096"),
        ({"size": 64 * MIB, "md_ratio": 0}, errno.EINVAL, "metadata ratio"),
        ({"size": 64 * MIB, "name": ""}, errno.EINVAL, "name is empty"),
        ({"size": 64 * MIB, "name": "a/b"}, errno.EINVAL, "contains '/'"),
        ({"size": 64 * MIB, "name": "n" * 256}, errno.ENAMETOOLONG, "at most 255"),
        ({"size": 1 << 60, "cluster_size": MIB}, errno.EFBIG, "cannot have"),
        ({}, errno.ENOENT, "give a size"),
    ],
)
def test_bad_requests_leave_no_file(tmp_path, options, code, text):
    path = tmp_path / "s"
    with pytest.raises(OSError, match=text) as info:
        Lvstore.create(str(path), **options)
    assert info.value.errno == code
    assert not path.exists()


def test_directory_and_missing_folder(tmp_path):
    with pytest.raises(OSError, match="is a directory"):
        Lvstore.create(str(tmp_path), size=64 * MIB)
    with pytest.raises(FileNotFoundError):
        Lvstore.create(str(tmp_path / "no" / "where"), size=64 * MIB)


def test_in_use(store):
    with pytest.raises(OSError, match="in use by") as info:
        Lvstore.open(store.path)
    assert info.value.errno == errno.EBUSY
    with pytest.raises(OSError, match="in use by"):
        Lvstore.create(store.path, force=True)
    with pytest.raises(OSError, match="in use by"):
        Lvstore.open(store.path, read_only=True)


def test_several_readers(store, reopen):
    first = reopen(store, read_only=True)
    with Lvstore.open(first.path, read_only=True) as second:
        assert second.uuid == first.uuid
        with pytest.raises(OSError, match="in use by"):
            Lvstore.open(first.path)


def test_grow(store, reopen):
    store.create_volume("v", 100 << 10).pwrite(b"data", 5)
    before = store.total_clusters
    os.truncate(store.path, 20 << 20)
    store.grow()
    assert store.total_clusters == before + 64
    store.create_volume("big", store.free_clusters * store.cluster_size, thick=True)
    store = reopen(store)
    assert not store.replayed
    assert store.total_clusters == before + 64
    assert store.free_clusters == 0
    assert store.get("v").pread(4, 5) == b"data"


def test_grow_after_a_crash(make_store, tmp_path):
    store = make_store()
    os.truncate(store.path, 20 << 20)
    store.grow()
    copy = tmp_path / "copy"
    copy.write_bytes(Path(store.path).read_bytes())
    with Lvstore.open(str(copy)) as other:
        assert other.replayed
        assert other.total_clusters == store.total_clusters


@pytest.mark.parametrize("fields_are_new", [False, True])
def test_power_lost_in_the_middle_of_the_superblock_of_a_growing_store(
    tmp_path: Path, fields_are_new: bool
) -> None:
    """On a device with sectors of 512 bytes: the first one has the fields, the last one the sum."""
    path = tmp_path / "store"
    with Lvstore.create(str(path), size=16 << 20, cluster_size=64 << 10) as store:
        store.create_volume("v", 100 << 10).pwrite(b"data", 5)
    with Lvstore.open(str(path)) as store:
        before, old = store.total_clusters, path.read_bytes()[:PAGE]
        os.truncate(path, 20 << 20)
        store.grow()
        torn = tmp_path / "torn"
        image = bytearray(path.read_bytes())
        image[:PAGE] = image[:512] + old[512:] if fields_are_new else old[:512] + image[512:PAGE]
        torn.write_bytes(image)
    assert [f.severity for f in check_store(str(torn))] == ["warning"]
    with Lvstore.open(str(torn)) as store:
        assert store.replayed
        store.grow()
        assert store.total_clusters == before + 64
        assert store.get("v").pread(4, 5) == b"data"
    assert check_store(str(torn)) == []


def test_grow_without_change_or_room(store, tmp_path):
    before = store.total_clusters
    store.grow()
    assert store.total_clusters == before
    os.truncate(store.path, 8 << 30)
    with pytest.raises(OSError, match="room to count 32728 clusters") as info:
        store.grow()
    assert info.value.errno == errno.ENOSPC
    assert store.total_clusters == before
    os.truncate(store.path, 16 << 20)


def test_rename_store(store, reopen):
    uuid = store.uuid
    store.create_volume("v", 1)
    store.rename("other")
    assert store.get("other/v").name == "v"
    with pytest.raises(OSError, match="at most 255"):
        store.rename("x" * 256)
    store = reopen(store)
    assert (store.name, store.uuid) == ("other", uuid)


def test_sixteen_tebibytes(tmp_path):
    path = str(tmp_path / "huge")
    size = (16 << 40) - MIB  # what an ext4 file can have
    with Lvstore.create(path, size=size, cluster_size=MIB) as store:
        volume = store.create_volume("v", 15 << 40)
        volume.pwrite(b"end", (15 << 40) - 3)
        volume.pwrite(b"begin", 0)
        volume.snapshot("s")
        volume.pwrite(b"END", (15 << 40) - 3)
    with Lvstore.open(path, force_replay=True) as store:
        assert store.get("s").pread(3, (15 << 40) - 3) == b"end"
        assert store.get("v").pread(3, (15 << 40) - 3) == b"END"
        assert store.get("v").pread(5, 0) == b"begin"
    assert Path(path).stat().st_blocks * 512 < 64 * MIB


def test_last_cluster_of_a_large_store(tmp_path):
    """A cluster number near the end lands at its byte offset and nowhere else."""
    path = tmp_path / "huge"
    with Lvstore.create(str(path), size=(16 << 40) - 64 * MIB, cluster_size=64 * MIB) as store:
        total = store.engine.total_clusters
        store.engine.mark_clusters(range(store.engine.metadata_clusters, total - 1))
        store.create_volume("v", 64 * MIB).pwrite(b"last", 4096)
    with path.open("rb") as file:
        file.seek((total - 1) * 64 * MIB + 4096)
        assert file.read(4) == b"last"
        file.seek((total - 1) * 64 * MIB)
        assert file.read(8) == bytes(8)
    assert struct.calcsize("P") == 8
