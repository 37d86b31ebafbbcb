"""The data path of one blob against what a disk would do."""

import errno
import os
import struct
import threading
from pathlib import Path

import pytest

from lvolfs._native.blob import Blob
from lvolfs._native.engine import Engine

from .conftest import CLUSTER, HEAD, MakeEngine, take_snapshot, thin_blob


def test_a_new_blob_reads_as_zeros_and_owns_nothing(engine: Engine) -> None:
    blob = thin_blob(engine)
    assert blob.pread(blob.size, 0) == bytes(blob.size)
    assert blob.num_allocated_clusters == 0


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (1, 511), (CLUSTER - 1, 2), (100, 3 * CLUSTER), (CLUSTER, CLUSTER), (5, 0)],
)
def test_writes_are_byte_granular(engine: Engine, offset: int, length: int) -> None:
    blob = thin_blob(engine)
    expected = bytearray(blob.size)
    data = os.urandom(length)
    blob.pwrite(data, offset)
    expected[offset : offset + length] = data
    assert blob.pread(blob.size, 0) == expected
    touched = (offset + length - 1) // CLUSTER - offset // CLUSTER + 1 if length else 0
    assert blob.num_allocated_clusters == touched


@pytest.mark.parametrize(
    ("offset", "length"), [(32 * CLUSTER, 1), (32 * CLUSTER - 1, 2), (1 << 62, 1)]
)
def test_nothing_lies_past_the_end(engine: Engine, offset: int, length: int) -> None:
    blob = thin_blob(engine)
    for attempt in (
        lambda: blob.pread(length, offset),
        lambda: blob.pwrite(bytes(length), offset),
        lambda: blob.unmap(offset, length),
        lambda: blob.write_zeroes(offset, length),
        lambda: blob.allocate(offset, length),
    ):
        with pytest.raises(OSError, match="Invalid argument"):
            attempt()


def test_cow_copies_only_what_the_write_does_not_cover(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"a" * 2 * CLUSTER, 0)
    snapshot = take_snapshot(engine, blob)
    engine.flush()
    before = engine.device.counters["bytes_read"]
    blob.pwrite(b"b" * CLUSTER, 0)
    assert engine.device.counters["bytes_read"] == before
    blob.pwrite(b"c" * 4096, CLUSTER)
    blob.flush()
    assert engine.device.counters["bytes_read"] == before + CLUSTER - 4096
    assert blob.pread(2 * CLUSTER, 0) == b"b" * CLUSTER + b"c" * 4096 + b"a" * (CLUSTER - 4096)
    assert snapshot.pread(2 * CLUSTER, 0) == b"a" * 2 * CLUSTER


def test_a_snapshot_refuses_every_change(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"a", 0)
    snapshot = take_snapshot(engine, blob)
    for attempt in (
        lambda: snapshot.pwrite(b"b", 0),
        lambda: snapshot.unmap(0, CLUSTER),
        lambda: snapshot.write_zeroes(0, 1),
        lambda: snapshot.allocate(CLUSTER, 1),
        lambda: snapshot.unmap_cluster(0),
    ):
        with pytest.raises(OSError, match="Read-only") as got:
            attempt()
        assert got.value.errno == errno.EROFS


def test_reads_go_down_a_long_chain(engine: Engine) -> None:
    blob = thin_blob(engine)
    for level in range(20):
        blob.pwrite(bytes([level]) * 100, level * CLUSTER)
        take_snapshot(engine, blob)
    for level in range(20):
        assert blob.pread(100, level * CLUSTER) == bytes([level]) * 100
    assert blob.pread(CLUSTER, 21 * CLUSTER) == bytes(CLUSTER)
    assert blob.num_allocated_clusters == 0


def test_unmapped_whole_clusters_are_freed_and_edges_zeroed(engine: Engine) -> None:
    blob = thin_blob(engine)
    free = engine.free_clusters
    blob.pwrite(b"x" * 4 * CLUSTER, 0)
    blob.unmap(100, 3 * CLUSTER)
    assert blob.num_allocated_clusters == 2
    assert engine.free_clusters == free - 2
    expected = b"x" * 100 + bytes(3 * CLUSTER) + b"x" * (CLUSTER - 100)
    assert blob.pread(4 * CLUSTER, 0) == expected


def test_unmap_never_shows_what_a_parent_has(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"p" * 3 * CLUSTER, 0)
    take_snapshot(engine, blob)
    blob.pwrite(b"q" * CLUSTER, 0)
    blob.unmap(0, 2 * CLUSTER)
    assert blob.pread(3 * CLUSTER, 0) == bytes(2 * CLUSTER) + b"p" * CLUSTER


def test_a_cluster_over_a_parents_hole_is_freed_by_unmap(engine: Engine) -> None:
    blob = thin_blob(engine)
    take_snapshot(engine, blob)
    blob.pwrite(b"q" * CLUSTER, 0)
    blob.unmap(0, CLUSTER)
    assert blob.num_allocated_clusters == 0


def test_spdks_unmap_of_a_cluster_keeps_to_its_own_layer(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"p" * 2 * CLUSTER, 0)
    blob.unmap_cluster(0)
    assert blob.num_allocated_clusters == 1
    take_snapshot(engine, blob)
    blob.pwrite(b"q" * CLUSTER, 0)
    blob.unmap_cluster(0)
    blob.unmap_cluster(1)
    assert blob.num_allocated_clusters == 1
    assert blob.pread(2 * CLUSTER, 0) == bytes(CLUSTER) + b"p" * CLUSTER


def test_write_zeroes_keeps_what_is_owned_and_allocates_only_over_data(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.write_zeroes(0, blob.size)
    assert blob.num_allocated_clusters == 0
    blob.pwrite(b"a" * CLUSTER, 0)
    blob.write_zeroes(10, 20)
    assert blob.num_allocated_clusters == 1
    take_snapshot(engine, blob)
    blob.write_zeroes(0, 2 * CLUSTER)
    assert blob.num_allocated_clusters == 1
    assert blob.pread(2 * CLUSTER, 0) == bytes(2 * CLUSTER)


def test_a_reused_cluster_shows_nothing_of_its_past(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"secret" * 1000, 0)
    with engine.exclusive():
        engine.destroy(blob)
    other = thin_blob(engine)
    other.pwrite(b"n", 5000)
    assert other.pread(CLUSTER, 0) == bytes(5000) + b"n" + bytes(CLUSTER - 5001)


def test_stale_bytes_in_a_free_cluster_are_zeroed_before_use(make_engine: MakeEngine) -> None:
    engine = make_engine()
    with Path(engine.device.path).open("r+b") as file:
        file.seek(engine.metadata_clusters * CLUSTER)
        file.write(b"\xaa" * 4 * CLUSTER)
    blob = thin_blob(engine)
    blob.pwrite(b"n", 5000)
    blob.allocate(CLUSTER, CLUSTER)
    expected = bytes(5000) + b"n" + bytes(2 * CLUSTER - 5001)
    assert blob.pread(2 * CLUSTER, 0) == expected


def test_a_full_store_refuses_the_write_and_keeps_everything_older(make_engine: MakeEngine) -> None:
    engine = make_engine(clusters=16)
    blob = thin_blob(engine, 32)
    room = engine.free_clusters
    data = os.urandom(room * CLUSTER)
    blob.pwrite(data, 0)
    with pytest.raises(OSError, match="No space left") as got:
        blob.pwrite(b"more", room * CLUSTER)
    assert got.value.errno == errno.ENOSPC
    assert blob.pread(len(data), 0) == data
    engine.flush()
    blob.unmap(0, CLUSTER)
    # The freed cluster is given back as soon as a writer needs it.
    blob.pwrite(b"more", room * CLUSTER)
    assert blob.pread(4, room * CLUSTER) == b"more"
    assert blob.pread(len(data) - CLUSTER, CLUSTER) == data[CLUSTER:]


def test_allocate_makes_a_volume_its_own(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"a" * CLUSTER, CLUSTER)
    take_snapshot(engine, blob)
    before = blob.pread(blob.size, 0)
    blob.allocate(0, 4 * CLUSTER)
    assert blob.num_allocated_clusters == 4
    assert blob.pread(blob.size, 0) == before


def test_fill_takes_only_what_ancestors_within_depth_have(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"1" * CLUSTER, 0)
    take_snapshot(engine, blob)
    blob.pwrite(b"2" * CLUSTER, CLUSTER)
    take_snapshot(engine, blob)
    assert blob.fill_from_ancestors(0, 32, depth=1, zeros=False) == 1
    assert blob.fragmap(0, 8) == b"\x02"
    assert blob.fill_from_ancestors(0, 32, depth=0, zeros=False) == 1
    assert blob.fragmap(0, 8) == b"\x03"
    assert blob.fill_from_ancestors(0, 32, depth=0, zeros=True) == 30


def test_seek_follows_the_whole_chain(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"1", 2 * CLUSTER)
    take_snapshot(engine, blob)
    blob.pwrite(b"1", 5 * CLUSTER)
    assert blob.seek_data(0) == 2 * CLUSTER
    assert blob.seek_data(2 * CLUSTER + 7) == 2 * CLUSTER + 7
    assert blob.seek_hole(2 * CLUSTER) == 3 * CLUSTER
    assert blob.seek_data(3 * CLUSTER) == 5 * CLUSTER
    assert blob.seek_hole(6 * CLUSTER) == 6 * CLUSTER
    with pytest.raises(OSError, match="No such device or address"):
        blob.seek_data(6 * CLUSTER)
    with pytest.raises(OSError, match="No such device or address"):
        blob.seek_hole(blob.size)


def test_sixteen_tebibytes_are_addressed(make_engine: MakeEngine) -> None:
    cluster = 1 << 20
    total = (16 << 40) // cluster - 1  # an ext4 file ends one block before 16 TiB
    engine = make_engine(clusters=total, cluster_size=cluster, md_len=1 << 20)
    with engine.exclusive():
        blob = engine.create_blob(total - engine.metadata_clusters, thin=True, head=HEAD)
        engine.persist(blob)
    end = blob.size
    blob.pwrite(b"end", end - 3)
    blob.pwrite(b"start", 0)
    engine.flush()
    assert blob.pread(3, end - 3) == b"end"
    assert blob.pread(5, 0) == b"start"
    assert blob.seek_data(cluster) == end - cluster
    clusters, bad = engine.load_extents(blob.extent_pages, blob.num_clusters)
    assert not bad
    assert sorted(clusters) == [0, (blob.num_clusters - 1) // 512]
    owned = [number for part in clusters.values() for (number,) in struct.iter_unpack("<I", part)]
    assert [c for c in owned if c] == [cluster for _, cluster in blob.owned()]
    assert [index for index, _ in blob.owned()] == [0, blob.num_clusters - 1]


def _hammer(blob: Blob, model: bytearray, seed: int, lane: slice, rounds: int) -> None:
    """Random operations of one thread on bytes that only it touches, interleaved with others'."""
    import random

    chance = random.Random(seed)
    own = range(len(model))[lane]
    for _ in range(rounds):
        at = chance.choice(own)
        length = chance.randrange(1, 512)
        length = min(length, 512 - at % 512)
        kind = chance.random()
        if kind < 0.7:
            data = chance.randbytes(length)
            blob.pwrite(data, at)
        elif kind < 0.9:
            data = bytes(length)
            blob.write_zeroes(at, length)
        else:
            data = bytes(length)
            blob.unmap(at, length)
        model[at : at + length] = data
        if chance.random() < 0.3:
            assert blob.pread(length, at) == data


@pytest.mark.parametrize("seed", range(3))
def test_threads_on_interleaved_sectors_of_the_same_clusters(engine: Engine, seed: int) -> None:
    """Each thread owns every fourth 512-byte sector, so all of them meet in every cluster."""
    blob = thin_blob(engine, 8)
    model = bytearray(blob.size)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for start in range(number * 512, 512 * 64, 4 * 512):
                lane = slice(start, start + 512)
                _hammer(blob, model, seed * 100 + number, lane, 25)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    snapshots = 0
    while any(thread.is_alive() for thread in threads):
        if snapshots < 8:
            take_snapshot(engine, blob)
            snapshots += 1
        engine.flush()
    for thread in threads:
        thread.join()
    assert not failures
    assert blob.pread(blob.size, 0) == model
