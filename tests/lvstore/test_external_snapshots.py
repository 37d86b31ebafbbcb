"""Clones of files outside of the store."""

import errno
import random

import pytest
from spdk_reader import SpdkStore

from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10
BASE_ID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base"
    path.write_bytes(random.Random(5).randbytes(4 * CLUSTER))
    return path


@pytest.fixture
def clone(store, base):
    return store.create_external_clone("c", str(base), snapshot_id=BASE_ID)


def test_read_through_and_copy_on_write(store, base, clone):
    content = bytearray(base.read_bytes())
    assert (clone.size, clone.num_allocated_clusters) == (4 * CLUSTER, 0)
    assert (clone.is_external_clone, clone.is_clone, clone.degraded) == (True, False, False)
    assert (clone.external_id, clone.external_path) == (BASE_ID, str(base))
    assert clone.pread(4 * CLUSTER, 0) == content
    clone.pwrite(b"changed", CLUSTER + 100)
    content[CLUSTER + 100 : CLUSTER + 107] = b"changed"
    assert clone.pread(4 * CLUSTER, 0) == content
    assert clone.num_allocated_clusters == 1
    assert b"changed" not in base.read_bytes()


def test_on_disk(store, base, clone):
    clone.pwrite(b"x", 0)
    store.close()
    with SpdkStore(store.path) as other:
        blob = other.lvols()["c"]
        assert blob.internal == {"EXTSNAP": BASE_ID.encode() + b"\0"}
        assert blob.flags == (15, 0, 0)
        assert other.content(blob, base.read_bytes()) == b"x" + base.read_bytes()[1:]


def test_reopened_with_and_without(store, base, clone, reopen):
    clone.pwrite(b"own", 0)
    store = reopen(store)
    clone = store.get("c")
    assert clone.degraded
    assert clone.pread(3, 0) == b"own"
    with pytest.raises(OSError, match="not at hand") as info:
        clone.pread(1, CLUSTER)
    assert info.value.errno == errno.EIO
    with pytest.raises(OSError, match="not at hand"):
        clone.pwrite(b"partial", CLUSTER)
    with pytest.raises(OSError, match="needs an external snapshot that is missing"):
        clone.inflate()
    clone.pwrite(bytes(CLUSTER), CLUSTER)
    assert clone.pread(CLUSTER, CLUSTER) == bytes(CLUSTER)
    store = reopen(store, external_snapshots={BASE_ID: str(base)})
    clone = store.get("c")
    assert not clone.degraded
    assert clone.pread(CLUSTER, 2 * CLUSTER) == base.read_bytes()[2 * CLUSTER : 3 * CLUSTER]
    store = reopen(store, external_snapshots={BASE_ID: str(base) + "-gone"})
    assert store.get("c").degraded


def test_below_a_snapshot(store, base, clone, reopen):
    clone.pwrite(b"1", 0)
    snapshot = clone.snapshot("s")
    assert snapshot.is_external_clone
    assert not clone.is_external_clone
    assert clone.parent is snapshot
    clone.pwrite(b"2", CLUSTER)
    expected = bytearray(base.read_bytes())
    expected[0:1], expected[CLUSTER : CLUSTER + 1] = b"1", b"2"
    assert clone.pread(4 * CLUSTER, 0) == expected
    store = reopen(store)
    assert store.get("c").degraded
    store = reopen(store, external_snapshots={BASE_ID: str(base)})
    store.get("s").delete()
    clone = store.get("c")
    assert (clone.parent, clone.external_id) == (None, BASE_ID)
    assert clone.pread(4 * CLUSTER, 0) == expected


@pytest.mark.parametrize("operation", ["inflate", "decouple"])
def test_independence(store, base, clone, operation, reopen):
    clone.pwrite(b"1", 0)
    getattr(clone, operation)()
    assert not clone.is_external_clone
    assert clone.num_allocated_clusters == 4
    assert clone.is_thin == (operation == "decouple")
    store = reopen(store)
    assert not store.get("c").degraded
    assert store.get("c").pread(4 * CLUSTER, 0) == b"1" + base.read_bytes()[1:]


def test_decoupling_takes_no_space_for_zeros_behind_the_end(store, base):
    volume = store.create_volume("v", 6 * CLUSTER)
    volume.set_external_parent(str(base))
    volume.decouple()
    assert volume.num_allocated_clusters == 4
    assert volume.pread(6 * CLUSTER, 0) == base.read_bytes() + bytes(2 * CLUSTER)


def test_detach_is_refused(clone):
    with pytest.raises(OSError, match="decouple it") as info:
        clone.detach()
    assert info.value.errno == errno.EINVAL


def test_set_external_parent(store, base, reopen):
    volume = store.create_volume("v", 6 * CLUSTER)
    volume.pwrite(b"own", 0)
    volume.set_external_parent(str(base))
    assert volume.pread(6, 0) == b"own" + bytes(3)
    assert volume.pread(CLUSTER, CLUSTER) == base.read_bytes()[CLUSTER : 2 * CLUSTER]
    assert not any(volume.pread(2 * CLUSTER, 4 * CLUSTER))
    with pytest.raises(OSError, match="already") as info:
        volume.set_external_parent(str(base))
    assert info.value.errno == errno.EEXIST
    external_id = volume.external_id
    volume = reopen(store, external_snapshots={external_id: str(base)}).get("v")
    assert volume.pread(CLUSTER, CLUSTER) == base.read_bytes()[CLUSTER : 2 * CLUSTER]


def test_from_external_to_local_parent(store, base, clone):
    volume = store.create_volume("v", 4 * CLUSTER)
    volume.pwrite(b"local", 0)
    clone.set_parent(volume.snapshot("s"))
    assert not clone.is_external_clone
    assert clone.pread(5, 0) == b"local"


def test_refusals(store, tmp_path, base, clone):
    odd = tmp_path / "odd"
    odd.write_bytes(bytes(CLUSTER + 1))
    for path in (odd, tmp_path / "empty"):
        path.touch()
        with pytest.raises(OSError, match="multiple of the cluster size") as info:
            store.create_external_clone("x", str(path))
        assert info.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        store.create_external_clone("x", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="in use"):
        store.create_external_clone("x", store.path)
    with pytest.raises(OSError, match="stands for"):
        store.create_external_clone("x", str(odd), snapshot_id=BASE_ID)
    thick = store.create_volume("thick", CLUSTER, thick=True)
    with pytest.raises(OSError, match="not thin"):
        thick.set_external_parent(str(base))
    assert {lvol.name for lvol in store.lvols} == {"c", "thick"}


def test_never_a_path_from_the_store(store, base, clone, reopen):
    """Knowing the id is not enough: the path has to come from whoever opens the store."""
    path = store.create_external_clone("d", str(base)).external_path
    store = reopen(store)
    assert path == str(base)
    assert all(lvol.degraded for lvol in store.lvols)


def test_one_device_for_many_clones(store, base, clone):
    second = store.create_external_clone("c2", str(base), snapshot_id=BASE_ID)
    second.pwrite(b"x", 0)
    assert clone.pread(1, 0) == base.read_bytes()[:1]
    clone.delete()
    assert second.pread(1, CLUSTER) == base.read_bytes()[CLUSTER : CLUSTER + 1]
    with Lvstore.create(str(base) + "-other", size=8 << 20, cluster_size=CLUSTER) as other:
        lvol = other.create_external_clone("c", str(base))
        assert lvol.pread(1, 1) == base.read_bytes()[1:2]
