"""A full store says so, keeps what it has, and goes on once there is room again."""

import errno
import random

import pytest

CLUSTER = 64 << 10


@pytest.fixture
def full(make_store):
    """A store of 30 clusters, of which one volume has all but two."""
    store = make_store(size=31 * CLUSTER, cluster_size=CLUSTER)
    taken = store.create_volume("taken", (store.free_clusters - 2) * CLUSTER, thick=True)
    return store, taken


def test_writer_gets_enospc_and_goes_on(full):
    store, taken = full
    data = random.Random(1).randbytes(10 * CLUSTER)
    volume = store.create_volume("v", 10 * CLUSTER)
    volume.pwrite(data[:100], 0)
    volume.flush()
    text = r"cannot write lvol 'v' of store 'lvs0'.*0 free clusters.*delete lvols or grow"
    with pytest.raises(OSError, match=text) as info:
        volume.pwrite(data, 0)
    assert info.value.errno == errno.ENOSPC
    assert volume.pread(100, 0) == data[:100]
    now = volume.pread(10 * CLUSTER, 0)
    for i in range(10):
        cluster = now[i * CLUSTER : (i + 1) * CLUSTER]
        wanted = data[i * CLUSTER : (i + 1) * CLUSTER]
        assert cluster in (wanted, bytes(CLUSTER), data[:100] + bytes(CLUSTER - 100))
    volume.flush()
    taken.delete()
    volume.pwrite(data, 0)
    volume.flush()
    assert volume.pread(10 * CLUSTER, 0) == data


def test_overwriting_needs_no_space(full):
    store, taken = full
    store.create_volume("v", 2 * CLUSTER, thick=True)
    assert store.free_clusters == 0
    taken.pwrite(b"x" * CLUSTER, 1000)
    assert taken.pread(CLUSTER, 1000) == b"x" * CLUSTER
    taken.snapshot("s")
    with pytest.raises(OSError, match="free clusters"):
        taken.pwrite(b"y", 0)
    assert taken.pread(1, 1000) == b"x"


def test_unmap_makes_room(full):
    store, taken = full
    volume = store.create_volume("v", 4 * CLUSTER)
    volume.pwrite(b"a" * 2 * CLUSTER, 0)
    with pytest.raises(OSError, match="free clusters"):
        volume.pwrite(b"b", 2 * CLUSTER)
    volume.unmap(0, CLUSTER)
    volume.pwrite(b"b", 2 * CLUSTER)
    assert volume.pread(CLUSTER, CLUSTER) == b"a" * CLUSTER
    assert taken.num_allocated_clusters == taken.num_clusters


def test_full_survives_reopening(full, reopen):
    store, _ = full
    volume = store.create_volume("v", 8 * CLUSTER)
    volume.pwrite(b"\1" * CLUSTER, 0)
    volume.pwrite(b"\2" * CLUSTER, CLUSTER)
    with pytest.raises(OSError, match="free clusters"):
        volume.pwrite(b"\3" * CLUSTER, 2 * CLUSTER)
    store = reopen(store)
    assert store.free_clusters == 0
    volume = store.get("v")
    assert volume.pread(8 * CLUSTER, 0)[::CLUSTER] == bytes([1, 2, 0, 0, 0, 0, 0, 0])
    store.get("taken").delete()
    volume.pwrite(b"x" * 8 * CLUSTER, 0)


def test_no_metadata_pages_left(make_store, reopen):
    store = make_store(size=2 << 20, cluster_size=8192, md_ratio=10)
    free = store.engine.free_pages - store.engine.reserved_pages
    names = [f"v{i}" for i in range(free)]
    for name in names:
        store.create_volume(name, 8192)
    with pytest.raises(OSError, match="0 free metadata pages") as info:
        store.create_volume("one-more", 8192)
    assert info.value.errno == errno.ENOSPC
    volume = store.get("v0")
    for call in (
        lambda: volume.pwrite(b"x", 0),
        lambda: volume.snapshot("s"),
        lambda: store.create_volume("w", 0),
        lambda: volume.set_xattr("x", bytes(4000)),
    ):
        with pytest.raises(OSError, match="0 free metadata pages"):
            call()
    assert sorted(names) == [lvol.name for lvol in store.lvols]
    store.get("v1").delete()
    volume.pwrite(b"x", 0)
    assert reopen(store).get("v0").pread(1, 0) == b"x"


def has_room(call, *arguments):
    """Whether the call did not fail with ENOSPC; any other error is one."""
    try:
        call(*arguments)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def test_snapshot_at_each_number_of_free_pages(make_store, reopen):
    """Every step of a snapshot and of its merge may be the one without room."""
    taken = []
    for spare in range(9):
        store = make_store(f"store-{spare}", size=4 << 20, cluster_size=8192, md_ratio=10)
        volume = store.create_volume("v", 600 * 8192)
        volume.pwrite(b"a" * 10, 0)
        volume.pwrite(b"b" * 10, 599 * 8192)
        volume.set_xattr("large", bytes(4000))
        volume.flush()
        while store.engine.free_pages - store.engine.reserved_pages > spare:
            store.create_volume(f"f{store.engine.free_pages}", 0)
        content = volume.pread(volume.size, 0)
        if has_room(volume.snapshot, "s", {"large": bytes(4000)}):
            taken.append(spare)
            snapshot = store.get("s")
            if has_room(volume.pwrite, b"c", 8192):
                content = content[:8192] + b"c" + content[8193:]
            if not has_room(snapshot.delete):
                assert volume.parent is snapshot
        else:
            assert volume.parent is None
            assert volume.num_allocated_clusters == 2
        assert volume.pread(volume.size, 0) == content
        store = reopen(store)
        assert not store.replayed
        assert store.damaged == []
        assert store.get("v").pread(len(content), 0) == content
    assert taken
    assert taken != list(range(9))


def refused_by_the_host(volume):
    """Nobody is told more than the errno, as by a mount."""
    device = volume.store.engine.device
    device.plant_fault("write", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        volume.blob.pwrite(b"y" * CLUSTER, 0)
    device.clear_faults()


def test_what_the_host_refused_before_is_no_reason(make_store, monkeypatch):
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    store = make_store(size=2 << 20, cluster_size=8192, md_ratio=10)
    first = store.create_volume("v", CLUSTER, thick=True)
    for number in range(store.engine.free_pages - store.engine.reserved_pages):
        store.create_volume(f"v{number}", 8192)
    refused_by_the_host(first)
    with pytest.raises(OSError, match=r"'one-more' has no room, but store 'lvs0' has .* 0 free"):
        store.create_volume("one-more", 8192)
