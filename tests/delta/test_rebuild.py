"""Rebuilding a volume with its snapshots on another store."""

import errno
import json
import threading

import pytest

from lvolfs.delta import checksums, rebuild_run
from lvolfs.delta.diff import diff
from lvolfs.delta.jobs import registry
from lvolfs.delta.rebuild import rebuild, start_rebuild
from lvolfs.lvstore.store import Lvstore
from tests.delta.conftest import CLUSTER, bits, cluster_of, fill, finish
from tests.delta.histories import SIZE, assert_same, diverge, source


@pytest.fixture
def volume(store):
    return source(store)


def actions(report):
    return [(layer.name, layer.action, layer.copied, layer.unmapped) for layer in report.layers]


def test_a_full_rebuild(volume, other):
    report = rebuild(volume, other)
    assert_same(volume, other)
    assert actions(report) == [("s1", "full", 20, 0), ("s2", "full", 4, 0), ("v", "full", 1, 0)]
    assert report.total("bytes_moved") == 25 * CLUSTER
    for layer in report.layers:
        assert layer.source_checksum == layer.destination_checksum is not None
    found = json.loads(json.dumps(report.as_dict()))
    assert found["totals"]["copied"] == 25
    # What was registered to verify is there for the next time.
    assert checksums.table(other.get("s1")) == checksums.table(volume.store.get("s1"))


def test_what_matches_is_kept(volume, other):
    rebuild(volume, other)
    fill(volume, [31], 4)
    fill(other.get("v"), [0, 39], "lost with the old head")
    report = rebuild(volume, other)
    assert_same(volume, other)
    assert actions(report) == [("s1", "kept", 0, 0), ("s2", "kept", 0, 0), ("v", "full", 2, 0)]
    assert report.total("bytes_moved") == 2 * CLUSTER


def test_new_snapshots_are_added(volume, other):
    rebuild(volume, other)
    volume.snapshot("s3")
    fill(volume, [1, 2], 5)
    report = rebuild(volume, other)
    assert_same(volume, other, ("s1", "s2", "s3"))
    assert [layer.action for layer in report.layers] == ["kept", "kept", "full", "full"]


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_only_differing_clusters_are_copied(volume, other, algorithm):
    diverge(other)
    report = rebuild(volume, other, algorithm=algorithm)
    assert actions(report) == [("s1", "delta", 2, 1), ("s2", "kept", 0, 0), ("v", "full", 1, 0)]
    assert report.layers[0].differing == 3
    assert report.layers[0].algorithm == algorithm
    ours, theirs = volume.store.get("s1"), other.get("s1")
    assert bits(theirs.fragmap()) == bits(ours.fragmap()) == list(range(20))
    assert diff(ours, theirs).equal
    assert diff(volume, other.get("v")).equal
    assert other.get("s2").parent is theirs


def read_by(*stores):
    """Bytes that the stores' devices have read so far, of clusters and of metadata."""
    return sum(store.engine.device.counters["bytes_read"] for store in stores)


def test_a_verified_delta_reads_only_what_differs_and_once_on_each_side(volume, other):
    diverge(other)
    for store in (volume.store, other):
        for name in ("s1", "s2"):
            finish(checksums.register(store.get(name)))
    before = read_by(volume.store, other)
    report = rebuild(volume, other)
    read = read_by(volume.store, other) - before
    # Two clusters of s1 and one of the head: read at the source, read back at the destination.
    assert report.total("copied") == 3
    assert report.total("bytes_read") == 2 * 3 * CLUSTER
    assert 0 <= read - report.total("bytes_read") < CLUSTER  # pages of metadata
    assert_same(volume, other)
    for name in ("s1", "s2"):
        ours, theirs = volume.store.get(name), other.get(name)
        assert checksums.table(ours) == checksums.table(theirs)
        assert finish(checksums.verify(theirs)).mismatched == []


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_a_full_copy_registers_the_source_on_the_way(volume, other, algorithm):
    report = rebuild(volume, other, algorithm=algorithm)
    assert report.total("bytes_read") == 2 * 25 * CLUSTER
    for name in ("s1", "s2"):
        assert finish(checksums.verify(volume.store.get(name), algorithm)).ok


def test_registered_checksums_alone_decide(volume, other):
    diverge(other)
    for store in (volume.store, other):
        for name in ("s1", "s2"):
            finish(checksums.register(store.get(name)))
    report = rebuild(volume, other, register_missing=False)
    assert [layer.action for layer in report.layers] == ["delta", "kept", "full"]


def test_without_checksums_everything_is_copied_again(volume, other):
    diverge(other)
    report = rebuild(volume, other, register_missing=False, verify=False)
    assert [layer.action for layer in report.layers] == ["full", "full", "full"]
    assert report.total("copied") == 25
    assert checksums.table(volume.store.get("s1")) is None
    assert bits(other.get("s1").fragmap()) == list(range(20))
    assert diff(volume, other.get("v")).equal


def test_bit_rot_in_the_replica_is_repaired(volume, other):
    rebuild(volume, other)
    rotten = other.get("s1")
    place = int.from_bytes(rotten.blob.clusters()[4 * 9 : 4 * 10], "little")
    other.engine.device.pwrite(b"bit rot", place * CLUSTER)
    assert finish(checksums.verify(rotten)).mismatched == [9]
    finish(checksums.register(rotten))
    report = rebuild(volume, other)
    assert actions(report)[0] == ("s1", "delta", 1, 0)
    assert_same(volume, other)


def test_a_volume_that_has_grown(store, other):
    volume = store.create_volume("v", 4 * CLUSTER)
    fill(volume, range(4))
    volume.snapshot("s1")
    volume.resize(9 * CLUSTER)
    fill(volume, [8])
    volume.snapshot("s2")
    rebuild(volume, other)
    assert_same(volume, other)
    volume.resize(12 * CLUSTER)
    rebuild(volume, other)
    assert other.get("v").size == 12 * CLUSTER
    assert_same(volume, other)


def test_a_volume_without_snapshots(store, other):
    volume = store.create_volume("v", 4 * CLUSTER)
    fill(volume, [0, 3])
    report = rebuild(volume, other, "copy")
    assert actions(report) == [("v", "full", 2, 0)]
    assert other.get("copy").pread(4 * CLUSTER, 0) == volume.pread(4 * CLUSTER, 0)
    assert other.get("copy").parent is None


def test_a_snapshot_as_the_source_gives_a_clone_of_it(volume, other):
    rebuild(volume.store.get("s2"), other, "v2")
    found = other.get("v2")
    assert found.parent is other.get("s2")
    assert found.num_allocated_clusters == 0
    assert diff(volume.store.get("s2"), found).equal


def test_from_a_store_that_is_open_read_only(volume, store, other):
    store.close()
    with Lvstore.open(store.path, read_only=True) as source:
        rebuild(source.get("v"), other)
        assert_same(source.get("v"), other)


def test_the_source_is_written_meanwhile(volume, other):
    before = volume.pread(SIZE, 0)
    job = start_rebuild(volume, other, "v", rate=20 * CLUSTER)
    stop = threading.Event()
    with volume.open(write=True):
        while not stop.is_set():
            fill(volume, [0, 30, 38], job.done)
            if job.wait(0.02):
                stop.set()
        finish(job)
    # Frozen at the start, before or after one of our first writes at most.
    rebuilt = other.get("v").pread(SIZE, 0)
    same = [c for c in range(40) if c not in (0, 30, 38)]
    assert all(
        rebuilt[c * CLUSTER : (c + 1) * CLUSTER] == before[c * CLUSTER : (c + 1) * CLUSTER]
        for c in same
    )
    assert [x.name for x in volume.store.lvols] == ["s1", "s2", "v"]


def refused(code, *args, match, **kwargs):
    with pytest.raises(OSError, match=match) as caught:
        rebuild(*args, **kwargs)
    assert caught.value.errno == code


class TestRefusals:
    def test_one_store(self, volume, store):
        refused(errno.EINVAL, volume, store, "w", match="onto itself")

    def test_cluster_sizes(self, volume, make_store):
        refused(
            errno.EINVAL, volume, make_store("x", cluster_size=CLUSTER // 2), match="cluster size"
        )

    def test_names(self, volume, other):
        refused(errno.EINVAL, volume, other, "a/b", match="not a name")
        refused(errno.EEXIST, volume, other, "s1", match="snapshot 's1'")
        fill(other.create_volume("v-rebuilding", CLUSTER), [0])
        refused(errno.EEXIST, volume, other, match="no rebuild's")

    def test_a_volume_where_a_snapshot_belongs(self, volume, other):
        other.create_volume("s1", CLUSTER)
        refused(errno.EEXIST, volume, other, match="volume 's1'")

    def test_a_snapshot_where_the_volume_belongs(self, volume, other):
        other.create_volume("x", CLUSTER).snapshot("v")
        refused(errno.EEXIST, volume, other, match="is a snapshot")

    def test_a_destination_in_use(self, volume, other):
        old = other.create_volume("v", CLUSTER)
        with old.open(write=False):
            refused(errno.EBUSY, volume, other, match="disconnect it first")

    def test_something_depends_on_what_must_be_replaced(self, volume, other):
        diverge(other)
        keep = other.get("s1").clone("precious")
        before = keep.pread(SIZE, 0)
        refused(errno.EBUSY, volume, other, match="'precious' depends on it")
        assert keep.pread(SIZE, 0) == before
        assert keep.parent.name == "s1"
        assert "v-rebuilding" not in [x.name for x in other.lvols]
        keep.inflate()
        rebuild(volume, other)
        assert keep.pread(SIZE, 0) == before
        assert diff(volume, other.get("v")).equal

    def test_a_read_only_destination(self, volume, other):
        other.close()
        with Lvstore.open(other.path, read_only=True) as again:
            refused(errno.EROFS, volume, again, match="read-only")

    def test_an_external_parent(self, store, other, tmp_path):
        path = tmp_path / "base"
        path.write_bytes(cluster_of("x") * 4)
        clone = store.create_external_clone("c", str(path))
        refused(errno.EOPNOTSUPP, clone, other, match="decouple it first")
        assert [x.name for x in store.lvols] == ["c"]

    def test_two_at_a_time(self, volume, other):
        job = start_rebuild(volume, other, "v", rate=CLUSTER)
        refused(errno.EBUSY, volume, other, match="being rebuilt already")
        job.cancel()
        assert job.wait(10)
        assert job.state == "cancelled"
        rebuild(volume, other)
        assert_same(volume, other)


def test_snapshots_that_only_the_destination_has_are_left_alone(volume, other):
    rebuild(volume, other)
    theirs = other.get("v")
    fill(theirs, [12], "theirs")
    theirs.snapshot("own")
    report = rebuild(volume, other)
    assert report.left_alone == ["own"]
    assert_same(volume, other)
    assert other.get("own").pread(CLUSTER, 12 * CLUSTER) == cluster_of(("theirs", 12))


def test_a_full_destination_says_so_and_can_go_on(volume, make_store):
    small = make_store("small", clusters=24)
    ballast = small.create_volume("ballast", 6 * CLUSTER, thick=True)
    with pytest.raises(OSError, match="No space left") as caught:
        rebuild(volume, small)
    assert caught.value.errno == errno.ENOSPC
    assert [x.name for x in volume.store.lvols] == ["s1", "s2", "v"]
    ballast.delete()
    small.create_volume("x", 0).delete()
    with pytest.raises(OSError, match="No space left"):
        rebuild(volume, small)


def test_the_job_is_seen_in_both_stores(volume, other):
    job = start_rebuild(volume, other, "v")
    finish(job)
    assert registry(other).get(job.id) is job
    assert registry(volume.store).get(job.id) is job
    assert (job.total, job.done) == (25, 25)


def test_progress_is_called(volume, other):
    seen = []
    rebuild(volume, other, progress=lambda job: seen.append((job.done, job.total)))
    assert seen[-1] == (25, 25)


def test_a_mismatch_after_the_copy_is_no_success(volume, other, monkeypatch):
    """A destination that loses a write is found out."""
    place = []

    class Losing(rebuild_run.Rebuild):
        def _verify_snapshot(self, step, report, copied):
            lvol = other.get(step.layer.name)
            place.append(int.from_bytes(lvol.blob.clusters()[:4], "little"))
            other.engine.device.pwrite(b"lost write", place[0] * CLUSTER)
            super()._verify_snapshot(step, report, copied)

    monkeypatch.setattr("lvolfs.delta.rebuild.Rebuild", Losing)
    with pytest.raises(OSError, match="snapshot 's1' does not match after the copy") as caught:
        rebuild(volume, other)
    assert caught.value.errno == errno.EIO
    monkeypatch.undo()
    report = rebuild(volume, other)
    assert actions(report)[0] == ("s1", "delta", 1, 0)
    assert_same(volume, other)
