"""Inflate, decouple, detach and set_parent, with the values of SPDK's own tests."""

import errno

import pytest

CLUSTER = 64 << 10


def fill(lvol, content):
    """One byte value a cluster; None leaves it."""
    for index, value in enumerate(content):
        if value is not None:
            lvol.pwrite(bytes([value]) * CLUSTER, index * CLUSTER)


def shown(lvol):
    content = lvol.pread(lvol.size, 0)
    for index in range(lvol.num_clusters):
        cluster = content[index * CLUSTER : (index + 1) * CLUSTER]
        assert cluster == cluster[:1] * CLUSTER
    return list(content[::CLUSTER])


def owned(lvol):
    return [i for i in range(lvol.num_clusters) if lvol.fragmap()[i // 8] >> i % 8 & 1]


@pytest.fixture
def chain(store):
    """s1 <- s2 <- v over five clusters; v shows dd ee dd cc 00."""
    volume = store.create_volume("v", 5 * CLUSTER)
    fill(volume, [0xDD, 0xDD, 0xDD, 0xDD])
    volume.snapshot("s1")
    fill(volume, [None, 0xEE])
    volume.snapshot("s2")
    fill(volume, [None, None, None, 0xCC])
    assert shown(volume) == [0xDD, 0xEE, 0xDD, 0xCC, 0]
    return volume


def test_inflate(store, chain, reopen):
    seen = []
    chain.inflate(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert shown(chain) == [0xDD, 0xEE, 0xDD, 0xCC, 0]
    assert (chain.is_thin, chain.parent, owned(chain)) == (False, None, [0, 1, 2, 3, 4])
    assert store.get("s2").children == []
    volume = reopen(store).get("v")
    assert (volume.is_thin, volume.parent) == (False, None)
    assert shown(volume) == [0xDD, 0xEE, 0xDD, 0xCC, 0]


def test_decouple_goes_one_level(store, chain, reopen):
    chain.decouple()
    assert chain.parent is store.get("s1")
    assert owned(chain) == [1, 3]
    assert shown(chain) == [0xDD, 0xEE, 0xDD, 0xCC, 0]
    store.get("s2").delete()
    chain.decouple()
    assert chain.parent is None
    assert owned(chain) == [0, 1, 2, 3]
    store.get("s1").delete()
    assert shown(reopen(store).get("v")) == [0xDD, 0xEE, 0xDD, 0xCC, 0]


def test_detach_drops_all_ancestry(store, chain, reopen):
    chain.detach()
    assert chain.parent is None
    assert shown(chain) == [0, 0, 0, 0xCC, 0]
    assert shown(store.get("s2")) == [0xDD, 0xEE, 0xDD, 0xDD, 0]
    volume = reopen(store).get("v")
    assert volume.is_thin
    assert shown(volume) == [0, 0, 0, 0xCC, 0]


def test_detached_snapshot_keeps_its_checksums(store, chain):
    second = store.get("s2")
    second.set_reserved_xattrs({"checksum": b"abcdefgh"}, bytes(8) + b"\x05\0\0\0")
    second.detach()
    assert second.get_xattr("checksum") == b"abcdefgh"
    assert len(second.checksum_records) == 12
    assert shown(chain) == [0, 0xEE, 0, 0xCC, 0]


@pytest.mark.parametrize("operation", ["inflate", "decouple"])
def test_copied_clusters_invalidate_checksums(store, chain, operation, reopen):
    second = store.get("s2")
    second.set_reserved_xattrs({"checksum": b"abcdefgh", "lvolfs.xxh3.0": b"x"}, bytes(12))
    before = shown(second)
    getattr(second, operation)()
    assert shown(second) == before
    assert second.checksum_records == b""
    second = reopen(store).get("s2")
    assert set(second.metadata.xattrs) == {"name", "uuid", "creation_time"}


def test_without_a_parent(store):
    volume = store.create_volume("v", CLUSTER)
    for call, text in ((volume.decouple, "to decouple from"), (volume.detach, "to detach from")):
        with pytest.raises(OSError, match=text) as info:
            call()
        assert info.value.errno == errno.EINVAL
    volume.inflate()
    assert not volume.is_thin
    assert owned(volume) == [0]


def test_cancelled_inflate_goes_on_later(make_store):
    store = make_store("other")
    volume = store.create_volume("v", 64 * CLUSTER)
    fill(volume, range(1, 65))
    volume.snapshot("s")
    answers = iter([False, False, True])
    with pytest.raises(OSError, match="was cancelled") as info:
        volume.inflate(cancel=lambda: next(answers))
    assert info.value.errno == errno.ECANCELED
    assert volume.parent is store.get("s")
    assert volume.num_allocated_clusters == 32
    assert volume.busy is None
    volume.inflate()
    assert shown(volume) == list(range(1, 65))
    assert volume.parent is None


def test_inflate_needs_space(store, chain):
    store.create_volume("fill", (store.free_clusters - 3) * CLUSTER, thick=True)
    with pytest.raises(OSError, match="needs 4 clusters") as info:
        chain.inflate()
    assert info.value.errno == errno.ENOSPC
    assert owned(chain) == [3]
    assert chain.busy is None


def test_set_parent(store, chain, reopen):
    other = store.create_volume("other", 5 * CLUSTER)
    fill(other, [0x11])
    other.set_parent(store.get("s2"))
    assert shown(other) == [0x11, 0xEE, 0xDD, 0xDD, 0]
    assert {child.name for child in store.get("s2").children} == {"v", "other"}
    other.set_parent(store.get("s1"))
    assert shown(other) == [0x11, 0xDD, 0xDD, 0xDD, 0]
    assert store.get("s2").children == [chain]
    other = reopen(store).get("other")
    assert other.parent.name == "s1"
    assert shown(other) == [0x11, 0xDD, 0xDD, 0xDD, 0]


def test_set_parent_is_seen_by_descendants(store, chain):
    base = store.create_volume("base", 5 * CLUSTER)
    fill(base, [0xAA] * 5)
    store.get("s1").set_parent(base.snapshot("base-snapshot"))
    assert shown(chain) == [0xDD, 0xEE, 0xDD, 0xCC, 0xAA]
    store.get("s1").detach()
    assert shown(chain) == [0xDD, 0xEE, 0xDD, 0xCC, 0]


def test_set_parent_refuses(store, chain, make_store):
    thick = store.create_volume("thick", 5 * CLUSTER, thick=True)
    small = store.create_volume("small", CLUSTER)
    foreign = make_store("foreign").create_volume("v", CLUSTER)
    foreign.set_read_only()
    snapshot = store.get("s1")
    cases = [
        (chain, chain, errno.EINVAL, "its own parent"),
        (chain, store.get("s2"), errno.EEXIST, "already"),
        (thick, snapshot, errno.EINVAL, "not thin"),
        (small, snapshot, errno.EINVAL, "larger"),
        (chain, small, errno.EINVAL, "not a snapshot"),
        (chain, foreign, errno.EINVAL, "another store"),
        (snapshot, store.get("s2"), errno.EINVAL, "a descendant of it"),
    ]
    for lvol, parent, code, text in cases:
        with pytest.raises(OSError, match=text) as info:
            lvol.set_parent(parent)
        assert info.value.errno == code
    assert chain.parent is store.get("s2")
