"""Snapshots and clones: what they show, who owns the clusters, how they go."""

import errno
import random

import pytest
from spdk_reader import SpdkStore

CLUSTER = 64 << 10


def pattern(size, seed=1):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def family(store):
    """v over s2 over s1: cluster 0 written under s1, 1 under s2, 2 in v."""
    volume = store.create_volume("v", 4 * CLUSTER)
    volume.pwrite(pattern(CLUSTER, 1), 0)
    volume.snapshot("s1")
    volume.pwrite(pattern(CLUSTER, 2), CLUSTER)
    volume.snapshot("s2")
    volume.pwrite(pattern(CLUSTER, 3), 2 * CLUSTER)
    return volume


def owned(lvol):
    return [i for i in range(lvol.num_clusters) if lvol.fragmap()[i // 8] >> i % 8 & 1]


def test_content_and_ownership(store, family):
    one, two, three = (pattern(CLUSTER, seed) for seed in (1, 2, 3))
    zeros = bytes(CLUSTER)
    first, second = store.get("s1"), store.get("s2")
    assert first.pread(4 * CLUSTER, 0) == one + zeros * 3
    assert second.pread(4 * CLUSTER, 0) == one + two + zeros * 2
    assert family.pread(4 * CLUSTER, 0) == one + two + three + zeros
    assert [owned(lvol) for lvol in (first, second, family)] == [[0], [1], [2]]
    assert (family.parent, second.parent, first.parent) == (second, first, None)
    assert (first.children, second.children) == ([second], [family])
    assert store.snapshots == [first, second]


def test_a_snapshot_never_changes(store, family):
    before = store.get("s2").pread(4 * CLUSTER, 0)
    family.pwrite(pattern(4 * CLUSTER, 9), 0)
    family.unmap(0, 4 * CLUSTER)
    assert store.get("s2").pread(4 * CLUSTER, 0) == before
    assert not any(family.pread(4 * CLUSTER, 0))


def test_relations_on_disk(store, family):
    ids = {lvol.name: lvol.id for lvol in store.lvols}
    store.close()
    with SpdkStore(store.path) as other:
        blobs = other.lvols()
        assert blobs["v"].parent_id == ids["s2"]
        assert blobs["s2"].parent_id == ids["s1"]
        assert blobs["s1"].parent_id is None
        assert [blobs[name].flags[1] for name in ("v", "s2", "s1")] == [0, 1, 1]
        assert blobs["s1"].xattrs["name"] == b"s1".ljust(64, b"\0")


def test_snapshot_xattrs(store, family, reopen):
    family.set_xattr("of-the-head", b"1")
    family.snapshot("s3", {"snapshot_timestamp": b"2026\0", "user_created": b"true"})
    store = reopen(store)
    assert store.get("s3").list_xattrs() == ["snapshot_timestamp", "user_created"]
    assert store.get("s3").get_xattr("snapshot_timestamp") == b"2026\0"
    assert store.get("v").list_xattrs() == ["of-the-head"]
    with pytest.raises(OSError, match="reserved"):
        store.get("v").snapshot("s4", {"uuid": b"x"})
    with pytest.raises(OSError, match="may have") as info:
        store.get("v").snapshot("s4", {"x": bytes(5000)})
    assert info.value.errno == errno.E2BIG
    assert "s4" not in [lvol.name for lvol in store.lvols]


def test_no_snapshot_of_a_snapshot_and_no_clone_of_a_volume(store, family):
    with pytest.raises(OSError, match="make a clone instead") as info:
        store.get("s1").snapshot("x")
    assert info.value.errno == errno.EPERM
    with pytest.raises(OSError, match="take a snapshot and clone that") as info:
        family.clone("x")
    assert info.value.errno == errno.EINVAL


def test_snapshot_of_a_thick_volume(store, reopen):
    volume = store.create_volume("v", 3 * CLUSTER, thick=True)
    volume.pwrite(pattern(100), 50)
    snapshot = volume.snapshot("s")
    assert (snapshot.is_thin, volume.is_thin) == (False, True)
    assert (owned(snapshot), owned(volume)) == ([0, 1, 2], [])
    store = reopen(store)
    assert store.get("v").pread(100, 50) == pattern(100)
    store.get("s").delete()
    assert owned(store.get("v")) == [0, 1, 2]


def test_clones(store, family):
    clone = store.get("s1").clone("c1")
    clone.pwrite(b"changed", 10)
    clone_snapshot = clone.snapshot("c1-snapshot")
    grandchild = clone_snapshot.clone("c2")
    assert grandchild.pread(17, 0) == pattern(CLUSTER, 1)[:10] + b"changed"
    assert store.get("s1").pread(CLUSTER, 0) == pattern(CLUSTER, 1)
    assert family.pread(CLUSTER, 0) == pattern(CLUSTER, 1)
    assert {child.name for child in store.get("s1").children} == {"s2", "c1-snapshot"}


def test_delete_in_the_middle_merges(store, family, reopen):
    free = store.free_clusters
    content = family.pread(4 * CLUSTER, 0)
    store.get("s2").delete()
    assert family.parent is store.get("s1")
    assert owned(family) == [1, 2]
    assert store.free_clusters == free
    store.get("s1").delete()
    assert family.parent is None
    assert owned(family) == [0, 1, 2]
    assert family.pread(4 * CLUSTER, 0) == content
    store = reopen(store)
    assert store.get("v").pread(4 * CLUSTER, 0) == content
    assert not store.replayed


def test_merge_frees_what_the_clone_has_overwritten(store, family):
    family.pwrite(pattern(CLUSTER, 7), CLUSTER)
    free = store.free_clusters
    store.get("s2").delete()
    assert store.free_clusters == free + 1
    assert family.pread(CLUSTER, CLUSTER) == pattern(CLUSTER, 7)


def test_merge_into_a_shrunk_clone(store, family):
    family.resize(CLUSTER)
    free = store.free_clusters
    store.get("s2").delete()
    assert store.free_clusters == free + 1
    assert family.pread(CLUSTER, 0) == pattern(CLUSTER, 1)


def test_several_clones_keep_a_snapshot(store, family):
    store.get("s1").clone("c")
    with pytest.raises(OSError, match=r"several clones \(c, s2\)") as info:
        store.get("s1").delete()
    assert info.value.errno == errno.EBUSY
    store.get("c").delete()
    store.get("s1").delete()


def test_no_merge_into_a_busy_clone(store, family):
    with family.claim("copy"), pytest.raises(OSError, match="'v' is busy: copy"):
        store.get("s2").delete()
    store.get("s2").delete()


def test_snapshot_without_clones_stays_a_snapshot(store, family, reopen):
    family.delete()
    store = reopen(store)
    assert [lvol.name for lvol in store.snapshots] == ["s1", "s2"]
    store.get("s2").delete()
    assert owned(store.get("s1")) == [0]


def test_checksums_go_when_the_own_layer_changes(store, family, reopen):
    second = store.get("s2")
    records = (1).to_bytes(8, "little") + (1).to_bytes(4, "little")
    second.set_reserved_xattrs(
        {"checksum": b"12345678", "lvolfs.xxh3.0": b"t", "lvolfs.crc64.0": b"t"}, records
    )
    store = reopen(store)
    second = store.get("s2")
    assert second.get_xattr("checksum") == b"12345678"
    assert second.checksum_records == records
    assert second.list_xattrs() == []
    store.get("s1").delete()
    for name in ("checksum", "lvolfs.xxh3.0", "lvolfs.crc64.0"):
        with pytest.raises(OSError, match="has no xattr") as info:
            second.get_xattr(name)
        assert info.value.errno == errno.ENODATA
    assert second.checksum_records == b""
    store = reopen(store)
    assert store.get("s2").checksum_records == b""


def test_many_snapshots(store, reopen):
    volume = store.create_volume("v", 40 * CLUSTER)
    for i in range(40):
        volume.pwrite(bytes([i + 1]) * CLUSTER, i * CLUSTER)
        volume.snapshot(f"s{i}")
    store = reopen(store)
    for i in range(40):
        content = store.get(f"s{i}").pread(40 * CLUSTER, 0)
        assert content[::CLUSTER] == bytes(range(1, i + 2)) + bytes(39 - i)
    for i in random.Random(3).sample(range(40), 40):
        store.get(f"s{i}").delete()
    assert store.get("v").pread(40 * CLUSTER, 0)[::CLUSTER] == bytes(range(1, 41))
    assert owned(store.get("v")) == list(range(40))
