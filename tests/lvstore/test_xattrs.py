"""Xattrs are kept as SPDK keeps them."""

import errno
import os

import pytest
from spdk_reader import SpdkStore


@pytest.fixture
def volume(store):
    return store.create_volume("v", 1 << 16)


def test_set_get_list_remove(store, volume, reopen):
    volume.set_xattr("color", b"red\0and\xff")
    volume.set_xattr("empty", b"")
    volume.set_xattr("größe", b"1")
    volume = reopen(store).get("v")
    assert volume.list_xattrs() == ["color", "empty", "größe"]
    assert volume.get_xattr("color") == b"red\0and\xff"
    assert volume.get_xattr("empty") == b""
    volume.set_xattr("color", b"blue")
    volume.remove_xattr("empty")
    assert volume.get_xattr("color") == b"blue"
    assert volume.list_xattrs() == ["color", "größe"]
    for call in (lambda: volume.get_xattr("empty"), lambda: volume.remove_xattr("empty")):
        with pytest.raises(OSError, match="no xattr 'empty'") as info:
            call()
        assert info.value.errno == errno.ENODATA


def test_identity_can_be_read_not_set(volume):
    assert volume.get_xattr("uuid") == volume.uuid.encode() + b"\0"
    assert volume.list_xattrs() == []
    for name in ("name", "uuid", "creation_time", "checksum", "lvolfs.xxh3.0", "lvolfs.other"):
        with pytest.raises(OSError, match="reserved") as info:
            volume.set_xattr(name, b"x")
        assert info.value.errno == errno.EPERM


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_bad_names(volume, name):
    with pytest.raises(OSError, match="is not valid") as info:
        volume.set_xattr(name, b"")
    assert info.value.errno == errno.EINVAL


def test_sizes(store, volume, reopen):
    """An xattr fits one metadata page or is refused; many of them fill a chain."""
    largest = 4072 - 9 - len("x")
    with pytest.raises(OSError, match="may have 4063") as info:
        volume.set_xattr("x", bytes(largest + 1))
    assert info.value.errno == errno.E2BIG
    with pytest.raises(OSError, match="longer than 255"):
        volume.set_xattr("n" * 256, b"")
    assert volume.list_xattrs() == []
    values = {f"{i}": os.urandom(largest) for i in range(9)} | {"n" * 255: os.urandom(3000)}
    for name, value in values.items():
        volume.set_xattr(name, value)
    volume = reopen(store).get("v")
    assert {name: volume.get_xattr(name) for name in volume.list_xattrs()} == values
    assert len(volume.blob.chain) == 11
    free = volume.store.engine.free_pages
    for name in values:
        volume.remove_xattr(name)
    assert volume.store.engine.free_pages == free + 10


def test_not_on_snapshots(volume):
    snapshot = volume.snapshot("s", {"given": b"1"})
    with pytest.raises(OSError, match="read-only, and so are its xattrs") as info:
        snapshot.set_xattr("x", b"1")
    assert info.value.errno == errno.EPERM
    with pytest.raises(OSError, match="read-only"):
        snapshot.remove_xattr("given")
    assert snapshot.get_xattr("given") == b"1"


def test_reserved_ones_of_checksums(store, volume):
    snapshot = volume.snapshot("s")
    snapshot.set_reserved_xattrs({"checksum": b"12345678", "lvolfs.xxh3.0": bytes(4000)}, bytes(24))
    for name in ("name", "uuid", "creation_time", "other"):
        with pytest.raises(OSError, match="does not belong to checksums"):
            snapshot.set_reserved_xattrs({name: b"x"})
    store.flush()
    with SpdkStore(store.path) as other:
        blob = other.lvols()["s"]
        assert blob.xattrs["checksum"] == b"12345678"
        assert blob.xattrs["lvolfs.xxh3.0"] == bytes(4000)
        assert blob.checksums == bytes(24)
    snapshot.set_reserved_xattrs({"checksum": None, "lvolfs.xxh3.0": None}, b"")
    store.flush()
    with SpdkStore(store.path) as other:
        assert set(other.lvols()["s"].xattrs) == {"name", "uuid", "creation_time"}
        assert other.lvols()["s"].checksums == b""


def test_long_checksum_tables(store, reopen):
    """12 bytes a record, over several descriptors and pages."""
    volume = store.create_volume("v", 3000 << 16)
    snapshot = volume.snapshot("s")
    records = os.urandom(12 * 3000)
    snapshot.set_reserved_xattrs({}, records)
    snapshot = reopen(store).get("s")
    assert snapshot.checksum_records == records
    assert len(snapshot.blob.chain) > 8


def fits(volume, name):
    try:
        volume.set_xattr(name, bytes(4000))
    except OSError as error:
        if error.errno != errno.ENOSPC or "needs another metadata page" not in str(error):
            raise
        return False
    return True


def test_no_room_for_metadata(make_store):
    store = make_store(size=1 << 20, cluster_size=8192, md_ratio=10)
    volume = store.create_volume("v", 8192)
    kept = []
    while fits(volume, f"x{len(kept)}"):
        kept.append(f"x{len(kept)}")
    assert len(kept) > 3
    assert volume.list_xattrs() == sorted(kept)
    assert store.engine.free_pages >= store.engine.reserved_pages
    volume.remove_xattr("x0")
    volume.pwrite(b"works", 0)
    volume.flush()
