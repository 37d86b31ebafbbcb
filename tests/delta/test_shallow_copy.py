"""Shallow, range and deep copies, and what they refuse."""

import errno
import time
from pathlib import Path

import pytest

from lvolfs.delta.copy import shallow_copy
from lvolfs.delta.jobs import registry
from lvolfs.lvstore.store import Lvstore
from tests.delta.conftest import CLUSTER, bits, cluster_of, fill, finish

SIZE = 12 * CLUSTER


@pytest.fixture
def chain(store):
    """base owns 0-5, s owns 2 (zeros), 4 and 8; the rest is unwritten."""
    volume = store.create_volume("v", SIZE)
    fill(volume, range(6), "base")
    volume.snapshot("base")
    fill(volume, [4, 8], "s")
    volume.pwrite(bytes(CLUSTER), 2 * CLUSTER)
    return volume.snapshot("s")


def shown(lvol, c):
    return lvol.pread(CLUSTER, c * CLUSTER)


def make_file(tmp_path, size=SIZE, fill_byte=b"\xee"):
    path = tmp_path / "destination"
    path.write_bytes(fill_byte * size)
    return path


class TestToAnLvol:
    @pytest.fixture
    def target(self, other):
        volume = other.create_volume("t", SIZE)
        fill(volume, range(12), "old")
        return volume

    def test_shallow_copies_only_what_the_source_owns(self, chain, target):
        job = shallow_copy(chain, target)
        finish(job)
        assert (job.state, job.total, job.copied, job.unmapped) == ("complete", 3, 3, 0)
        assert job.bytes == 3 * CLUSTER
        for c in range(12):
            expected = shown(chain, c) if c in (2, 4, 8) else cluster_of(("old", c))
            assert shown(target, c) == expected

    def test_into_an_empty_volume_owns_the_same_clusters(self, chain, other):
        volume = other.create_volume("t", SIZE)
        finish(shallow_copy(chain, volume))
        assert volume.fragmap() == chain.fragmap()

    def test_range_copies_what_is_owned_and_unmaps_the_rest(self, chain, target):
        job = shallow_copy(chain, target, [8, range(2, 6), 11])
        finish(job)
        assert (job.total, job.copied, job.unmapped) == (6, 3, 3)
        assert bits(target.fragmap()) == [0, 1, 2, 4, 6, 7, 8, 9, 10]
        for c in range(12):
            if c in (2, 4, 8):
                assert shown(target, c) == shown(chain, c)
            elif c in (3, 5, 11):
                assert shown(target, c) == bytes(CLUSTER)
            else:
                assert shown(target, c) == cluster_of(("old", c))

    def test_unmapping_follows_spdks_rule_over_a_parent(self, chain, target):
        target.snapshot("old")
        fill(target, [5], "new")
        job = shallow_copy(chain, target, [5, 11])
        finish(job)
        assert job.unmapped == 2
        # Owned: zeroed and kept. Not owned: left alone, the parent shows through.
        assert bits(target.fragmap()) == [5]
        assert shown(target, 5) == bytes(CLUSTER)
        assert shown(target, 11) == cluster_of(("old", 11))

    def test_each_listed_cluster_counts(self, chain, target):
        job = shallow_copy(chain, target, [4, 4, 0, 0])
        finish(job)
        assert (job.total, job.copied, job.unmapped) == (4, 2, 2)

    def test_deep_copies_what_any_ancestor_has(self, chain, target):
        job = shallow_copy(chain, target, deep=True)
        finish(job)
        assert (job.total, job.done, job.copied, job.unmapped) == (12, 12, 7, 0)
        for c in range(12):
            expected = shown(chain, c) if c in (*range(6), 8) else cluster_of(("old", c))
            assert shown(target, c) == expected

    def test_by_name_in_the_same_store(self, store, chain):
        volume = store.create_volume("t", SIZE)
        finish(shallow_copy(chain, "lvs0/t"))
        assert volume.fragmap() == chain.fragmap()

    def test_other_cluster_size(self, chain, make_store):
        fine = make_store("fine", clusters=600, cluster_size=CLUSTER // 4)
        volume = fine.create_volume("t", SIZE)
        volume.pwrite(b"\xee" * SIZE, 0)
        finish(shallow_copy(chain, volume, range(12)))
        for c in range(12):
            assert shown(volume, c) == (shown(chain, c) if c in (2, 4, 8) else bytes(CLUSTER))
        assert volume.num_allocated_clusters == 3 * 4
        coarse = make_store("coarse", clusters=60, cluster_size=CLUSTER * 4)
        volume = coarse.create_volume("t", SIZE)
        volume.pwrite(b"\xee" * SIZE, 0)
        finish(shallow_copy(chain, volume, range(12)))
        for c in range(12):
            assert shown(volume, c) == (shown(chain, c) if c in (2, 4, 8) else bytes(CLUSTER))

    def test_is_durable_when_complete(self, chain, target, other, tmp_path):
        finish(shallow_copy(chain, target))
        # What a power cut would leave at worst: the file as it is now.
        crashed = tmp_path / "crashed.img"
        crashed.write_bytes(Path(other.path).read_bytes())
        with Lvstore.open(str(crashed)) as again:
            assert shown(again.get("t"), 8) == shown(chain, 8)

    def test_both_stores_list_the_job(self, store, other, chain, target):
        job = shallow_copy(chain, target)
        finish(job)
        assert registry(store).get(job.id) is job
        assert registry(other).get(job.id) is job
        registry(store).forget(job.id)
        with pytest.raises(OSError, match="no job"):
            registry(other).get(job.id)


class TestToAFile:
    def test_shallow_and_range(self, chain, tmp_path):
        path = make_file(tmp_path)
        finish(shallow_copy(chain, path))
        finish(shallow_copy(chain, str(path), [0, 8]))
        data = path.read_bytes()
        for c in range(12):
            part = data[c * CLUSTER : (c + 1) * CLUSTER]
            if c in (2, 4, 8):
                assert part == shown(chain, c)
            else:
                assert part == (bytes(CLUSTER) if c == 0 else b"\xee" * CLUSTER)

    def test_deep_into_a_sparse_file_stays_sparse(self, chain, tmp_path):
        path = tmp_path / "destination"
        with path.open("wb") as file:
            file.truncate(SIZE)
        finish(shallow_copy(chain, path, deep=True))
        assert path.read_bytes() == chain.pread(SIZE, 0)
        assert path.stat().st_blocks * 512 <= 7 * CLUSTER

    def test_what_is_a_hole_in_the_store_is_not_written(self, store, tmp_path):
        """Of a thick volume, clusters that nobody ever wrote to."""
        volume = store.create_volume("thick", SIZE, thick=True)
        fill(volume, [1, 7])
        snapshot = volume.snapshot("thick-snapshot")
        path = make_file(tmp_path)
        job = shallow_copy(snapshot, str(path))
        finish(job)
        assert (job.copied, job.bytes) == (12, 2 * CLUSTER)
        assert path.read_bytes() == snapshot.pread(SIZE, 0)
        assert path.stat().st_blocks * 512 <= 4 * CLUSTER

    def test_the_lock_is_released(self, chain, tmp_path):
        path = make_file(tmp_path)
        finish(shallow_copy(chain, path))
        finish(shallow_copy(chain, path))


def refused(code, *args, match, **kwargs):
    with pytest.raises(OSError, match=match) as caught:
        shallow_copy(*args, **kwargs)
    assert caught.value.errno == code


class TestRefusals:
    def test_of_the_destination(self, store, other, chain, tmp_path):
        volume = other.create_volume("t", SIZE)
        small = other.create_volume("small", SIZE - CLUSTER)
        snapshot = other.create_volume("x", SIZE).snapshot("snap")
        refused(errno.EROFS, chain, snapshot, match="is a snapshot")
        refused(errno.EINVAL, chain, small, match="make the destination bigger")
        refused(errno.ENOENT, chain, "nothing", match="nothing")
        refused(errno.ENOENT, chain, str(tmp_path / "nothing"), match="must exist")
        refused(errno.EINVAL, chain, str(tmp_path), match="neither a regular file")
        refused(errno.EINVAL, chain, make_file(tmp_path, SIZE - 1), match="bigger")
        refused(errno.EBUSY, chain, store.path, match="itself is kept in")
        refused(errno.EBUSY, chain, other.path, match="is locked by")
        with volume.open(write=True):
            refused(errno.EBUSY, chain, volume, match="open for writing elsewhere")
        with volume.open(write=False):
            finish(shallow_copy(chain, volume))
        with volume.claim("inflate"):
            refused(errno.EBUSY, chain, volume, match="inflate")

    def test_of_a_file_that_somebody_writes(self, chain, tmp_path):
        path = make_file(tmp_path)
        with path.open("r+b"):
            refused(errno.EBUSY, chain, path, match=r"open for writing elsewhere: process \S+ \(")
        with path.open("rb"):
            finish(shallow_copy(chain, path))

    def test_of_the_sources_own_chain(self, store, chain):
        refused(errno.EINVAL, chain, chain, match="part of the chain")
        refused(errno.EINVAL, chain, "base", match="part of the chain")
        # Its child is no part of what is read.
        finish(shallow_copy(chain, store.get("v")))

    def test_of_a_read_only_store(self, other, chain):
        other.create_volume("t", SIZE)
        other.close()
        with Lvstore.open(other.path, read_only=True) as again:
            refused(errno.EROFS, chain, again.get("t"), match="open read-only")

    def test_of_the_source_and_the_selection(self, store, other, chain):
        volume = other.create_volume("t", SIZE)
        refused(errno.EPERM, store.get("v"), volume, match="copy a snapshot")
        refused(errno.EINVAL, chain, volume, [], match="no clusters")
        refused(errno.EINVAL, chain, volume, [1], deep=True, match="deep")
        refused(errno.ERANGE, chain, volume, [0, 12], match="cluster 12")
        with chain.claim("checksum"):
            refused(errno.EBUSY, chain, volume, match="checksum")
        assert (volume.writers, volume.busy, chain.busy) == (0, None, None)

    def test_as_spdk_reports_them(self, store, other, chain):
        small = other.create_volume("small", SIZE - CLUSTER)
        target = other.create_volume("t", SIZE)
        for args, code in (
            ((store.get("v"), target), errno.EPERM),
            ((chain, small), errno.EINVAL),
            ((chain, target, [12]), errno.EINVAL),
        ):
            job = shallow_copy(*args, refused_as_job=True)
            assert (job.state, job.errno) == ("error", code)
            assert registry(store).get(job.id) is job

    def test_operation_ids_ascend(self, chain, other):
        volume = other.create_volume("t", SIZE)
        ids = []
        for _ in range(3):
            job = shallow_copy(chain, volume)
            finish(job)
            ids.append(job.id)
        assert ids == sorted(set(ids))


def test_an_error_in_the_middle_tells_what_was_copied(chain, make_store):
    small = make_store("small", clusters=6)
    volume = small.create_volume("t", SIZE)
    free = small.free_clusters
    assert 0 < free < 7
    job = shallow_copy(chain, volume, deep=True)
    assert job.wait(20)
    assert (job.state, job.errno) == ("error", errno.ENOSPC)
    assert job.copied == free
    assert f"writing cluster {free} of lvol 'small/t'" in job.error
    assert (volume.writers, volume.busy, chain.busy) == (0, None, None)
    assert all(shown(volume, c) == shown(chain, c) for c in range(free))


def test_cancel(store, chain, other):
    volume = other.create_volume("t", SIZE)
    job = shallow_copy(chain, volume, rate=CLUSTER)
    with pytest.raises(OSError, match="busy"):
        chain.delete()
    with pytest.raises(OSError, match=r"busy|open"):
        volume.delete()
    registry(store).cancel(job.id)
    assert job.wait(5)
    assert job.state == "cancelled"
    assert job.copied < job.total
    assert (volume.writers, chain.busy) == (0, None)
    with pytest.raises(OSError, match="ended already"):
        registry(store).cancel(job.id)


def test_closing_either_store_ends_the_copy(chain, other):
    volume = other.create_volume("t", SIZE)
    job = shallow_copy(chain, volume, rate=CLUSTER)
    begun = time.monotonic()
    other.close()
    assert time.monotonic() - begun < 5
    assert job.state == "cancelled"


def test_rate_limit_can_be_changed_under_way(chain, other):
    volume = other.create_volume("t", SIZE)
    job = shallow_copy(chain, volume, rate=1)
    assert not job.wait(0.2)
    job.control.rate = 0
    finish(job)


def test_deep_reads_an_external_parent_and_shallow_does_not(store, tmp_path):
    base = tmp_path / "base"
    base.write_bytes(b"".join(cluster_of(("base", c)) for c in range(6)))
    clone = store.create_external_clone("c", str(base))
    fill(clone, [2], "own")
    snapshot = clone.snapshot("cs")
    path = make_file(tmp_path, 6 * CLUSTER)
    job = shallow_copy(snapshot, path)
    finish(job)
    assert (job.total, job.copied) == (1, 1)
    finish(shallow_copy(snapshot, path, deep=True))
    assert path.read_bytes() == snapshot.pread(6 * CLUSTER, 0)


def test_a_missing_external_parent_ends_a_deep_copy(store, tmp_path):
    base = tmp_path / "base"
    base.write_bytes(cluster_of("base") * 6)
    clone = store.create_external_clone("c", str(base))
    fill(clone, [0], "own")
    clone.snapshot("cs")
    path = make_file(tmp_path, 6 * CLUSTER)
    store.close()
    with Lvstore.open(store.path) as again:
        job = shallow_copy(again.get("cs"), path, deep=True)
        assert job.wait(10)
        assert (job.state, job.errno, job.copied) == ("error", errno.EIO, 1)
        assert "reading cluster 1 of lvol 'cs'" in job.error
