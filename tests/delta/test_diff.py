"""Which clusters differ, and whether it was found out the cheap way."""

import errno
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvolfs._native.control import Control
from lvolfs.delta import checksums
from lvolfs.delta.diff import as_ranges, diff
from lvolfs.lvstore.store import Lvstore
from tests import golden
from tests.delta.conftest import CLUSTER, fill, finish

SIZE = 20 * CLUSTER


def differing(report):
    return [c for each in report.ranges for c in each]


def plain(a, b, cluster=CLUSTER):
    """The same by reading everything; the shorter one continues with zeros."""
    length = max(a.size, b.size)
    left = a.pread(a.size, 0).ljust(length, b"\0")
    right = b.pread(b.size, 0).ljust(length, b"\0")
    return [
        at // cluster
        for at in range(0, length, cluster)
        if left[at : at + cluster] != right[at : at + cluster]
    ]


@pytest.fixture
def pair(store):
    """Two snapshots of one volume: base owns 0-9, top owns 3, 4 (rewritten alike), 12."""
    volume = store.create_volume("v", SIZE)
    fill(volume, range(10))
    base = volume.snapshot("base")
    fill(volume, [3, 12], "new")
    fill(volume, [4])
    return base, volume.snapshot("top")


def decided(report):
    return report.by_map, report.by_checksum, report.by_reading


def test_by_map_and_reading(pair):
    report = diff(*pair)
    assert differing(report) == [3, 12] == plain(*pair)
    assert decided(report) == (17, 0, 3)
    assert report.bytes_read == 2 * 3 * CLUSTER
    assert not report.equal


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_by_registered_checksums_nothing_is_read(pair, algorithm):
    for snapshot in pair:
        finish(checksums.register(snapshot, algorithm=algorithm))
    report = diff(*pair)
    assert differing(report) == [3, 12]
    # Cluster 12 is unwritten in base: the checksum of zeros stands for it.
    assert decided(report) == (17, 3, 0)
    assert report.bytes_read == 0


def test_different_algorithms_do_not_compare(pair):
    finish(checksums.register(pair[0], algorithm="xxh3"))
    finish(checksums.register(pair[1], algorithm="crc64"))
    report = diff(*pair)
    assert differing(report) == [3, 12]
    assert decided(report) == (17, 1, 2)


def test_partial_tables_help_where_they_reach(pair):
    finish(checksums.register(pair[0]))
    finish(checksums.register(pair[1], [3]))
    report = diff(*pair)
    assert differing(report) == [3, 12]
    assert decided(report) == (17, 1, 2)


def test_checksums_of_ancestors_count(store, pair, make_store):
    for snapshot in pair:
        finish(checksums.register(snapshot))
    volume = store.get("v")
    fill(volume, [7], "later")
    top = volume.snapshot("last")
    finish(checksums.register(top))
    report = diff(pair[0], top)
    assert differing(report) == [3, 7, 12]
    assert decided(report) == (16, 4, 0)


def test_between_stores(pair, other):
    volume = other.create_volume("w", SIZE)
    fill(volume, range(10))
    fill(volume, [12, 15], "new")
    theirs = volume.snapshot("s")
    report = diff(pair[1], theirs)
    assert differing(report) == [3, 15] == plain(pair[1], theirs)
    # Only what is unwritten on both sides is known by the maps of two stores.
    assert decided(report) == (8, 0, 12)
    for snapshot in (*pair, theirs):
        finish(checksums.register(snapshot))
    assert decided(diff(pair[1], theirs)) == (8, 12, 0)


def test_owned_zeros_equal_unwritten_ones(store, other):
    empty = store.create_volume("e", SIZE).snapshot("empty")
    volume = other.create_volume("z", SIZE)
    volume.pwrite(bytes(SIZE), 0)
    zeros = volume.snapshot("zeros")
    assert diff(empty, zeros).equal
    finish(checksums.register(zeros))
    report = diff(empty, zeros)
    assert report.equal
    assert decided(report) == (0, 20, 0)


def test_different_sizes(store, other):
    small = store.create_volume("a", 4 * CLUSTER)
    fill(small, range(4))
    large = other.create_volume("b", 8 * CLUSTER)
    fill(large, range(4))
    fill(large, [6])
    for one, another in ((small, large), (large, small)):
        report = diff(one, another)
        assert differing(report) == [6]
        assert report.num_clusters == 8
    large.unmap(6 * CLUSTER, CLUSTER)
    report = diff(small, large)
    assert differing(report) == []
    assert not report.equal


def test_a_smaller_lvol_in_between_hides_what_is_below(store, other):
    volume = store.create_volume("v", 8 * CLUSTER)
    fill(volume, range(8))
    finish(checksums.register(volume.snapshot("full")))
    volume.resize(4 * CLUSTER)
    finish(checksums.register(volume.snapshot("cut")))
    volume.resize(8 * CLUSTER)
    top = volume.snapshot("regrown")
    finish(checksums.register(top))
    empty = other.create_volume("e", 8 * CLUSTER)
    assert differing(diff(top, empty)) == [0, 1, 2, 3] == plain(top, empty)


def test_different_cluster_sizes_are_refused(pair, make_store):
    theirs = make_store("fine", cluster_size=CLUSTER // 2).create_volume("x", SIZE)
    with pytest.raises(OSError, match="same cluster size") as caught:
        diff(pair[0], theirs)
    assert caught.value.errno == errno.EINVAL


def test_cancel(pair):
    control = Control()
    control.cancel()
    with pytest.raises(OSError, match="cancel") as caught:
        diff(*pair, control=control)
    assert caught.value.errno == errno.ECANCELED
    assert pair[0].open_count == 0


def test_external_parents_are_read(tmp_path):
    external = {golden.EXTERNAL_ID: golden.unpack("esnap_ext", tmp_path)}
    path = golden.unpack("esnap_b512", tmp_path)
    with Lvstore.open(path, external_snapshots=external) as store:
        lvol = next(each for each in store.lvols if each.is_external_clone)
        report = diff(lvol, lvol)
        assert report.equal
        assert report.by_reading > 0


def test_as_ranges():
    assert as_ranges([]) == []
    assert as_ranges([0, 1, 2, 5, 7, 8]) == [range(3), range(5, 6), range(7, 9)]


NUMBERS = itertools.count()
WRITES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3)), max_size=8)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layers=st.lists(WRITES, min_size=2, max_size=4), data=st.data())
def test_diff_is_what_reading_everything_gives(make_store, layers, data):
    stores = [make_store(f"h{next(NUMBERS)}", clusters=80) for _ in range(2)]
    taken = []
    for store in stores:
        volume = store.create_volume("v", 12 * CLUSTER)
        for number, writes in enumerate(layers):
            for cluster, tag in writes:
                if tag == 0:
                    volume.unmap(cluster * CLUSTER, CLUSTER)
                else:
                    fill(volume, [cluster], data.draw(st.integers(0, 1)) if tag > 2 else tag)
            snapshot = volume.snapshot(f"s{number}")
            if data.draw(st.booleans()):
                finish(checksums.register(snapshot))
            taken.append(snapshot)
    a, b = data.draw(st.sampled_from(taken)), data.draw(st.sampled_from(taken))
    assert differing(diff(a, b)) == plain(a, b)
    for store in stores:
        store.close()
