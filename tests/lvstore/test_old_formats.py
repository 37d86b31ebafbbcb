"""What older SPDK wrote: run-length extents, superblocks before version 3, and metadata pages
that are larger than 4096 bytes."""

import random
import struct

import pytest
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.image_editor import ImageEditor, to_run_length

CLUSTER = 64 << 10


def pattern(seed, clusters=1):
    return random.Random(seed).randbytes(clusters * CLUSTER)


def make(path, clusters=8):
    with Lvstore.create(str(path), size=16 << 20, cluster_size=CLUSTER) as store:
        volume = store.create_volume("v", clusters * CLUSTER)
        volume.pwrite(pattern(1, 3), 0)
        volume.pwrite(pattern(2), 5 * CLUSTER)
    return ImageEditor(path)


@pytest.fixture
def old(tmp_path):
    image = make(tmp_path / "old")
    to_run_length(image, "v")
    return str(image.path)


def expected():
    return pattern(1, 3) + bytes(2 * CLUSTER) + pattern(2) + bytes(2 * CLUSTER)


def test_run_length_extents_are_read(old):
    with SpdkStore(old) as other:
        assert other.lvols()["v"].uses_rle
        assert other.content(other.lvols()["v"]) == expected()
    for read_only in (True, False):
        with Lvstore.open(old, read_only=read_only) as store:
            assert store.damaged == []
            assert store.get("v").num_allocated_clusters == 4
            assert store.get("v").pread(8 * CLUSTER, 0) == expected()
    assert check_store(old) == []


def test_run_length_extents_are_written(old):
    with Lvstore.open(old) as store:
        store.get("v").pwrite(b"new", 7 * CLUSTER)
        store.get("v").unmap(0, CLUSTER)
        content = store.get("v").pread(8 * CLUSTER, 0)
        store.get("v").resize(9 * CLUSTER)
    with SpdkStore(old) as other:
        other.assert_consistent()
        blob = other.lvols()["v"]
        assert blob.uses_rle
        assert [i for i, c in enumerate(blob.clusters) if c] == [1, 2, 5, 7]
        assert other.content(blob) == content + bytes(CLUSTER)


def test_life_of_a_run_length_lvol(old):
    with Lvstore.open(old) as store:
        volume = store.get("v")
        volume.snapshot("s")
        volume.pwrite(b"over", CLUSTER)
        clone = store.get("s").clone("c")
        clone.pwrite(b"clone", 0)
        over = bytearray(expected())
        over[CLUSTER : CLUSTER + 4] = b"over"
    with SpdkStore(old) as other:
        other.assert_consistent()
        assert other.lvols()["s"].uses_rle
        assert not other.lvols()["v"].uses_rle
        assert other.content(other.lvols()["v"]) == over
    with Lvstore.open(old) as store:
        store.get("c").delete()
        store.get("s").delete()
        assert store.get("v").pread(8 * CLUSTER, 0) == over
        store.get("v").snapshot("s2")
        store.get("v").inflate()
    with SpdkStore(old) as other:
        other.assert_consistent()
        assert other.content(other.lvols()["v"]) == over


@pytest.mark.parametrize("version", [1, 2])
def test_superblock_before_version_3(tmp_path, version):
    """No blob id mask, no sizes: it is replayed at each open, and stays that version."""
    image = make(tmp_path / "old")
    image.edit_superblock(8, struct.pack("<I", version))
    image.edit_superblock(72, bytes(8 + 8 + 4 + 4))
    path = str(image.path)
    for round_ in range(3):
        with Lvstore.open(path) as store:
            assert store.replayed
            assert store.damaged == []
            assert store.get("v").pread(8 * CLUSTER, 0) == expected()
            store.create_volume(f"new{round_}", CLUSTER).pwrite(b"x", 0)
    page = image.read(0, 4096)
    assert struct.unpack_from("<I", page, 8)[0] == version
    assert page[72:80] == bytes(8)
    with Lvstore.open(path, read_only=True) as store:
        assert len(store.lvols) == 4


def test_large_metadata_pages(tmp_path):
    """Slots of 16 KiB, of which 4096 bytes carry data."""
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=64 << 20, cluster_size=CLUSTER, md_page_size=16384) as store:
        volume = store.create_volume("v", 600 * CLUSTER)
        volume.pwrite(pattern(1, 3), 511 * CLUSTER)
        volume.set_xattr("x", bytes(3900))
        volume.snapshot("s")
        volume.pwrite(b"new", 0)
        content = volume.pread(volume.size, 0)
    with SpdkStore(path) as other:
        assert other.pg == 16384
        other.assert_consistent()
        assert other.content(other.lvols()["v"]) == content
    assert check_store(path) == []
    for force_replay in (False, True):
        with Lvstore.open(path, force_replay=force_replay) as store:
            assert store.get("v").pread(len(content), 0) == content
            assert store.get("s").pread(3 * CLUSTER, 511 * CLUSTER) == pattern(1, 3)


def test_long_names_of_longhorns_fork(tmp_path):
    """Name fields of 256 bytes are read up to 255; new names stay short enough for all."""
    image = make(tmp_path / "fork")
    with Lvstore.open(str(image.path)) as store:
        lvol = store.get("v")
        metadata = lvol.metadata.copy()
        metadata.xattrs["name"] = (b"n" * 255).ljust(256, b"\0")
        lvol.write_metadata(metadata)
    with Lvstore.open(str(image.path)) as store:
        assert store.get("n" * 255).pread(8 * CLUSTER, 0) == expected()
