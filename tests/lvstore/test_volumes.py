"""Volumes: making, resizing, renaming, deleting, and who holds them."""

import errno
import random

import pytest
from spdk_reader import SpdkStore

from lvolfs.lvstore.lvol import LvolNotFound

CLUSTER = 64 << 10


def pattern(size, seed=1):
    return random.Random(seed).randbytes(size)


def test_thin_volume_reads_zeros_and_owns_nothing(store):
    volume = store.create_volume("v", 1000)
    assert volume.size == CLUSTER
    assert (volume.is_thin, volume.is_snapshot, volume.is_clone) == (True, False, False)
    assert volume.num_allocated_clusters == 0
    assert volume.pread(CLUSTER, 0) == bytes(CLUSTER)
    assert store.volumes == [volume]
    assert store.snapshots == []


def test_thick_volume_owns_all(store, reopen):
    free = store.free_clusters
    volume = store.create_volume("v", 10 * CLUSTER, thick=True)
    assert volume.num_allocated_clusters == 10
    assert store.free_clusters == free - 10
    assert volume.pread(volume.size, 0) == bytes(volume.size)
    volume = reopen(store).get("v")
    assert not volume.is_thin
    assert volume.num_allocated_clusters == 10


def test_thick_volume_shows_nothing_of_what_was_there(store):
    old = store.create_volume("old", 10 * CLUSTER)
    old.pwrite(b"secret" * 50000, 0)
    old.delete()
    volume = store.create_volume("v", 20 * CLUSTER, thick=True)
    assert volume.pread(volume.size, 0) == bytes(volume.size)


def test_identity_on_disk(store):
    volume = store.create_volume("völume", CLUSTER)
    store.close()
    with SpdkStore(store.path) as other:
        blob = other.lvols()["völume"]
        assert blob.xattrs["name"] == "völume".encode().ljust(64, b"\0")
        assert blob.xattrs["uuid"] == volume.uuid.encode() + b"\0"
        assert blob.xattrs["creation_time"] == volume.creation_time.encode() + b"\0"
        assert len(blob.xattrs["creation_time"]) == 21
        assert blob.flags == (5, 0, 0)


@pytest.mark.parametrize("size", [0, 1, CLUSTER, CLUSTER + 1, 1 << 40])
def test_sizes_are_rounded_up_to_clusters(store, reopen, size):
    store.create_volume("v", size)
    assert reopen(store).get("v").size == -(-size // CLUSTER) * CLUSTER


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("", errno.EINVAL, "empty"),
        ("a" * 256, errno.ENAMETOOLONG, "256 bytes; at most 255"),
        ("é" * 128, errno.ENAMETOOLONG, "256 bytes; at most 255"),
        ("a/b", errno.EINVAL, "'/' or NUL"),
        ("a\0b", errno.EINVAL, "'/' or NUL"),
        (".", errno.EINVAL, "reserved"),
        ("..", errno.EINVAL, "reserved"),
        ("\udcff", errno.EINVAL, "not valid UTF-8"),
        ("taken", errno.EEXIST, "exists already in store 'lvs0'"),
    ],
)
def test_bad_names(store, name, code, text):
    taken = store.create_volume("taken", 1)
    other = store.create_volume("other", 1)
    snapshot = other.snapshot("snapshot")
    calls = (
        lambda: store.create_volume(name, 1),
        lambda: other.rename(name),
        lambda: other.snapshot(name),
        lambda: snapshot.clone(name),
    )
    for call in calls:
        with pytest.raises(OSError, match=text) as info:
            call()
        assert info.value.errno == code
    assert [lvol.name for lvol in store.lvols] == ["other", "snapshot", "taken"]
    assert taken.size == CLUSTER


def test_longest_names(store, reopen):
    names = ["a" * 63, "b" * 64, "c" * 255, "é" * 127]
    for name in names:
        store.create_volume(name, 1)
    assert [lvol.name for lvol in reopen(store).lvols] == names


@pytest.mark.parametrize(
    ("size", "code", "text"),
    [
        (-1, errno.EINVAL, "must not be negative"),
        (1 << 60, errno.EFBIG, "at most"),
    ],
)
def test_bad_sizes(store, size, code, text):
    volume = store.create_volume("v", CLUSTER)
    for call in (lambda: store.create_volume("w", size), lambda: volume.resize(size)):
        with pytest.raises(OSError, match=text) as info:
            call()
        assert info.value.errno == code
    assert volume.size == CLUSTER


def test_thick_needs_space(store):
    free = store.free_clusters
    with pytest.raises(OSError, match=f"has {free} free clusters") as info:
        store.create_volume("v", (free + 1) * CLUSTER, thick=True)
    assert info.value.errno == errno.ENOSPC
    volume = store.create_volume("v", CLUSTER, thick=True)
    with pytest.raises(OSError, match="free clusters"):
        volume.resize((free + 1) * CLUSTER)
    assert (volume.size, store.free_clusters) == (CLUSTER, free - 1)
    volume.resize(free * CLUSTER)
    assert store.free_clusters == 0


def test_resize_both_ways(store, reopen):
    volume = store.create_volume("v", 600 * CLUSTER)
    data = pattern(3 * CLUSTER)
    volume.pwrite(data, 0)
    volume.pwrite(data, 590 * CLUSTER)
    free = store.free_clusters
    volume.resize(2 * CLUSTER)
    assert store.free_clusters == free + 4
    assert volume.pread(volume.size, 0) == data[: 2 * CLUSTER]
    volume.resize(700 * CLUSTER)
    assert volume.pread(3 * CLUSTER, 0) == data[: 2 * CLUSTER] + bytes(CLUSTER)
    assert not any(volume.pread(3 * CLUSTER, 590 * CLUSTER))
    volume.pwrite(b"end", volume.size - 3)
    volume = reopen(store).get("v")
    assert volume.size == 700 * CLUSTER
    assert volume.pread(3, volume.size - 3) == b"end"
    volume.resize(0)
    assert volume.size == 0


def test_shrunk_data_of_a_parent_do_not_come_back(store):
    volume = store.create_volume("v", 4 * CLUSTER)
    volume.pwrite(pattern(4 * CLUSTER), 0)
    snapshot = volume.snapshot("s")
    volume.resize(CLUSTER)
    volume.resize(8 * CLUSTER)
    assert volume.pread(volume.size, 0) == pattern(4 * CLUSTER)[:CLUSTER] + bytes(7 * CLUSTER)
    assert volume.num_allocated_clusters == 3
    assert snapshot.pread(4 * CLUSTER, 0) == pattern(4 * CLUSTER)


def test_clone_larger_than_its_parent(store):
    volume = store.create_volume("v", CLUSTER)
    volume.pwrite(pattern(CLUSTER), 0)
    volume.snapshot("s")
    volume.resize(600 * CLUSTER)
    assert volume.num_allocated_clusters == 0
    volume.pwrite(b"far", 599 * CLUSTER)
    store.get("s").delete()
    assert volume.pread(CLUSTER, 0) == pattern(CLUSTER)
    assert volume.pread(3, 599 * CLUSTER) == b"far"
    assert not any(volume.pread(CLUSTER, 300 * CLUSTER))


def test_snapshots_cannot_be_resized(store):
    volume = store.create_volume("v", CLUSTER)
    snapshot = volume.snapshot("s")
    with pytest.raises(OSError, match="its size is fixed") as info:
        snapshot.resize(2 * CLUSTER)
    assert info.value.errno == errno.EPERM


def test_rename(store, reopen):
    volume = store.create_volume("before", CLUSTER)
    uuid = volume.uuid
    volume.rename("after")
    with pytest.raises(LvolNotFound, match="no lvol 'before' in store 'lvs0'"):
        store.get("before")
    assert store.get("after") is store.get(uuid) is store.get("lvs0/after") is volume
    store = reopen(store)
    assert store.get("after").uuid == uuid
    store.close()
    with SpdkStore(store.path) as other:
        assert other.lvols()["after"].xattrs["name"] == b"after\0"


def test_delete(store, reopen):
    free = store.free_clusters
    volume = store.create_volume("v", 10 * CLUSTER)
    volume.pwrite(pattern(5 * CLUSTER), 0)
    volume.delete()
    assert store.free_clusters == free
    for call in (
        lambda: volume.pread(1, 0),
        lambda: volume.pwrite(b"x", 0),
        volume.flush,
        volume.delete,
        lambda: volume.snapshot("s"),
        lambda: volume.resize(1),
    ):
        with pytest.raises(LvolNotFound, match="'v' has been deleted"):
            call()
    assert reopen(store).lvols == []


def test_open_and_busy_lvols_are_not_deleted(store):
    volume = store.create_volume("v", CLUSTER)
    with volume.open(write=True) as token:
        assert (volume.open_count, volume.writers) == (1, 1)
        with pytest.raises(OSError, match="'v' is open") as info:
            volume.delete()
        assert info.value.errno == errno.EBUSY
        with pytest.raises(OSError, match="open for writing"):
            volume.set_read_only()
        token.close()
        assert volume.open_count == 0
    assert volume.open_count == 0
    with volume.claim("checksum"):
        assert volume.busy == "checksum"
        for call in (volume.delete, lambda: volume.resize(0), lambda: volume.snapshot("s")):
            with pytest.raises(OSError, match="busy: checksum is under way") as info:
                call()
            assert info.value.errno == errno.EBUSY
        with pytest.raises(OSError, match="busy"), volume.claim("copy"):
            pass
    assert volume.busy is None
    volume.delete()


def test_read_only_lvol(store, reopen):
    volume = store.create_volume("v", CLUSTER)
    volume.pwrite(b"x", 0)
    volume.set_read_only()
    assert volume.is_read_only
    assert volume.is_snapshot
    for call in (
        lambda: volume.pwrite(b"y", 0),
        lambda: volume.unmap(0, CLUSTER),
        lambda: volume.write_zeroes(0, 1),
        lambda: volume.open(write=True),
    ):
        with pytest.raises(OSError, match="read-only") as info:
            call()
        assert info.value.errno == errno.EROFS
    volume = reopen(store).get("v")
    assert volume.is_read_only
    assert volume.pread(1, 0) == b"x"
    assert volume.clone("c").pread(1, 0) == b"x"


def test_read_only_store(store, reopen):
    store.create_volume("v", CLUSTER).pwrite(b"x", 0)
    store = reopen(store, read_only=True)
    volume = store.get("v")
    assert volume.pread(1, 0) == b"x"
    for call in (
        lambda: volume.pwrite(b"y", 0),
        lambda: volume.open(write=True),
        lambda: store.create_volume("w", 1),
        volume.delete,
        lambda: volume.snapshot("s"),
        store.grow,
    ):
        with pytest.raises(OSError, match="read-only"):
            call()


def test_closed_store(store):
    volume = store.create_volume("v", CLUSTER)
    store.close()
    store.close()
    for call in (lambda: volume.pread(1, 0), lambda: store.create_volume("w", 1), store.flush):
        with pytest.raises(OSError, match="is closed") as info:
            call()
        assert info.value.errno == errno.EBADF


def test_access_past_the_end(store):
    volume = store.create_volume("v", CLUSTER)
    for call in (
        lambda: volume.pread(1, CLUSTER),
        lambda: volume.pread(2, CLUSTER - 1),
        lambda: volume.pwrite(b"xx", CLUSTER - 1),
        lambda: volume.unmap(0, CLUSTER + 1),
        lambda: volume.readinto(bytearray(2), CLUSTER - 1),
    ):
        with pytest.raises(OSError, match=f"out of its {CLUSTER} bytes") as info:
            call()
        assert info.value.errno == errno.EINVAL


def test_events(store):
    seen = []
    store.events.append(lambda kind, lvol: seen.append((kind, lvol.name)))
    volume = store.create_volume("v", CLUSTER)
    volume.snapshot("s")
    volume.rename("w")
    volume.resize(2 * CLUSTER)
    store.get("s").delete()
    volume.delete()
    assert seen == [
        ("created", "v"),
        ("created", "s"),
        ("changed", "v"),
        ("renamed", "w"),
        ("resized", "w"),
        ("deleted", "s"),
        ("changed", "w"),
        ("deleted", "w"),
    ]
