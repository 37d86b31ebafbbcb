"""Copy-on-write that is put off: what a write does not cover is copied when it is needed."""

import errno
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lvolfs._native.blob import Blob
from lvolfs._native.device import Device
from lvolfs._native.engine import Engine

from .conftest import CLUSTER, MakeEngine, take_snapshot, thin_blob

BLOCK = 4096


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")


OLD = bytes(range(256)) * (CLUSTER // 256)


@pytest.fixture
def blob(engine: Engine) -> Blob:
    """Shows a parent's data in its first four clusters and owns nothing."""
    blob = thin_blob(engine)
    blob.pwrite(OLD * 4, 0)
    take_snapshot(engine, blob)
    engine.flush()
    return blob


def bytes_read(blob: Blob) -> int:
    return blob.engine.device.counters["bytes_read"]


def bytes_written(blob: Blob) -> int:
    return blob.engine.device.counters["bytes_written"]


def place_of(blob: Blob | None, c: int) -> int:
    """Where on the device its own cluster `c` begins."""
    assert blob is not None
    return int.from_bytes(blob.clusters(c, 1), "little") * CLUSTER


def test_a_small_write_copies_nothing_until_a_flush(blob: Blob) -> None:
    before = bytes_read(blob), bytes_written(blob)
    blob.pwrite(b"new!" * 1024, BLOCK)
    assert (bytes_read(blob), bytes_written(blob)) == (before[0], before[1] + BLOCK)
    assert blob.num_allocated_clusters == 1
    assert blob.engine.dirty
    blob.flush()
    assert bytes_read(blob) == before[0] + CLUSTER
    assert blob.pread(CLUSTER, 0) == OLD[:BLOCK] + b"new!" * 1024 + OLD[2 * BLOCK :]
    assert not blob.engine.dirty


def test_writes_that_cover_a_cluster_together_copy_nothing(blob: Blob) -> None:
    before = bytes_read(blob)
    content = os.urandom(CLUSTER)
    starts = list(range(0, CLUSTER, BLOCK))
    random.Random(1).shuffle(starts)
    for start in starts:
        blob.pwrite(content[start : start + BLOCK], start)
    blob.flush()
    assert bytes_read(blob) == before
    assert blob.pread(CLUSTER, 0) == content


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 1),
        (1, 1),
        (BLOCK - 1, 2),
        (BLOCK, 1),
        (BLOCK + 1, BLOCK - 2),
        (100, 3 * BLOCK),
        (CLUSTER - 1, 1),
        (CLUSTER - BLOCK - 1, BLOCK + 1),
        (1, CLUSTER - 2 * BLOCK),
        (CLUSTER - 1, 2),
        (BLOCK, 2 * CLUSTER),
    ],
)
@pytest.mark.parametrize("zeros", [False, True])
def test_any_part_of_a_cluster_can_be_written(
    blob: Blob, start: int, length: int, zeros: bool
) -> None:
    expected = bytearray(OLD * 4)
    data = bytes(length) if zeros else os.urandom(length)
    expected[start : start + length] = data
    if zeros:
        blob.write_zeroes(start, length)
    else:
        blob.pwrite(data, start)
    assert blob.pread(4 * CLUSTER, 0) == expected
    # What has been written once is written over, and the same is found after the copy.
    middle = start + length // 2
    blob.pwrite(b"#", middle)
    expected[middle] = ord("#")
    assert blob.pread(4 * CLUSTER, 0) == expected
    blob.flush()
    assert blob.pread(4 * CLUSTER, 0) == expected


def test_a_read_of_any_part_sees_both_layers(blob: Blob) -> None:
    expected = bytearray(OLD * 4)
    chosen = random.Random(2)
    for _ in range(40):
        start = chosen.randrange(4 * CLUSTER - 3 * BLOCK)
        data = chosen.randbytes(chosen.randrange(1, 3 * BLOCK))
        blob.pwrite(data, start)
        expected[start : start + len(data)] = data
        start = chosen.randrange(4 * CLUSTER)
        length = chosen.randrange(4 * CLUSTER - start)
        assert blob.pread(length, start) == expected[start : start + length]


LOOKS: dict[str, Callable[[Blob], object]] = {
    "fragmap": lambda blob: blob.fragmap()[0] == 1,
    "clusters": lambda blob: blob.clusters(0, 1) != bytes(4),
    "owned": lambda blob: [index for index, _ in blob.owned()] == [0],
    "own cluster": lambda blob: blob.read_own_cluster(0) == b"x" + OLD[1:],
}


@pytest.mark.parametrize("look", LOOKS)
def test_who_looks_at_the_map_finds_the_cluster(blob: Blob, look: str) -> None:
    blob.pwrite(b"x", 0)
    assert LOOKS[look](blob)


def test_a_snapshot_holds_what_was_written_just_before(blob: Blob) -> None:
    blob.pwrite(b"x", 0)
    snapshot = take_snapshot(blob.engine, blob)
    assert snapshot.read_own_cluster(0) == b"x" + OLD[1:]
    assert blob.num_allocated_clusters == 0
    assert blob.pread(CLUSTER, 0) == b"x" + OLD[1:]


def test_unmapping_a_cluster_as_spdk_zeroes_it(blob: Blob) -> None:
    blob.pwrite(b"x", 0)
    blob.unmap_cluster(0)
    assert blob.pread(2 * CLUSTER, 0) == bytes(CLUSTER) + OLD


def test_space_given_for_a_partial_cluster_completes_it(blob: Blob) -> None:
    blob.pwrite(b"x", 0)
    blob.allocate(0, CLUSTER)
    assert blob.num_allocated_clusters == 1
    assert blob.read_own_cluster(0) == b"x" + OLD[1:]


def test_the_flusher_completes_what_nobody_flushes(blob: Blob) -> None:
    blob.pwrite(b"x", 0)
    blob.engine.start_flusher(0.01)
    give_up = time.monotonic() + 20
    while blob.engine.dirty:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    blob.engine.stop_flusher()
    before = bytes_read(blob)
    blob.flush()
    assert bytes_read(blob) == before


def test_a_flush_completes_the_clusters_of_every_volume(blob: Blob) -> None:
    other = thin_blob(blob.engine)
    other.pwrite(OLD, 0)
    take_snapshot(blob.engine, other)
    blob.pwrite(b"x", 0)
    other.pwrite(b"y", 0)
    blob.flush()
    assert not blob.engine.dirty
    assert other.read_own_cluster(0) == b"y" + OLD[1:]


def clone_and_volume_with_partial_clusters(engine: Engine) -> tuple[Blob, Blob]:
    doomed, kept = thin_blob(engine), thin_blob(engine)
    for blob in (doomed, kept):
        blob.pwrite(OLD * 2, 0)
        take_snapshot(engine, blob)
    engine.flush()
    for blob in (doomed, kept):
        blob.pwrite(b"new!" * 1024, BLOCK)
    return doomed, kept


def test_deleting_a_volume_copies_nothing_for_it(engine: Engine) -> None:
    doomed, kept = clone_and_volume_with_partial_clusters(engine)
    free, read = engine.free_clusters, bytes_read(kept)
    with engine.exclusive(doomed=doomed):
        engine.destroy(doomed)
    assert bytes_read(kept) == read + CLUSTER  # the other volume's
    assert engine.free_clusters == free + 1
    assert not engine.dirty
    assert kept.pread(CLUSTER, 0) == OLD[:BLOCK] + b"new!" * 1024 + OLD[2 * BLOCK :]


def test_a_volume_that_was_not_deleted_after_all_has_its_last_writes(engine: Engine) -> None:
    doomed, _ = clone_and_volume_with_partial_clusters(engine)
    with suppress(InterruptedError), engine.exclusive(doomed=doomed):
        raise InterruptedError
    assert engine.dirty
    doomed.flush()
    assert not engine.dirty
    assert doomed.pread(CLUSTER, 0) == OLD[:BLOCK] + b"new!" * 1024 + OLD[2 * BLOCK :]


def test_a_volume_whose_parent_is_lost_can_be_deleted(blob: Blob) -> None:
    engine = blob.engine
    blob.pwrite(b"new!" * 1024, BLOCK)
    lost = place_of(blob.parent, 0)
    engine.device.plant_fault("read", errno.EIO, offset=lost, length=CLUSTER)
    with engine.exclusive(doomed=blob):
        engine.destroy(blob)
    engine.flush()
    assert engine.device.counters["errors"] == 0


def test_a_full_store_refuses_the_write_itself(make_engine: MakeEngine) -> None:
    engine = make_engine(clusters=16)
    blob = thin_blob(engine)
    blob.pwrite(OLD, 0)
    take_snapshot(engine, blob)
    while engine.free_clusters:
        blob.pwrite(OLD, (blob.num_allocated_clusters + 1) * CLUSTER)
    with pytest.raises(OSError, match="No space") as got:
        blob.pwrite(b"x", 0)
    assert got.value.errno == errno.ENOSPC
    blob.flush()
    assert blob.pread(CLUSTER, 0) == OLD


def test_a_write_that_the_device_refuses_takes_no_cluster(blob: Blob) -> None:
    free = blob.engine.free_clusters
    blob.engine.device.plant_fault("write", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        blob.pwrite(b"x" * BLOCK, 0)
    blob.engine.device.clear_faults()
    assert blob.engine.free_clusters == free
    assert blob.num_allocated_clusters == 0
    assert blob.pread(CLUSTER, 0) == OLD


def test_a_parent_that_cannot_be_read_fails_the_flush_of_its_clone_alone(blob: Blob) -> None:
    other = thin_blob(blob.engine)
    blob.pwrite(b"x" * BLOCK, 0)
    other.pwrite(b"fine", 0)
    lost = place_of(blob.parent, 0)
    blob.engine.device.plant_fault("read", errno.EIO, offset=lost, length=CLUSTER)
    with pytest.raises(OSError, match="Input/output"):
        blob.flush()
    other.flush()
    # What was written is still there, and so is what can be read of the rest.
    assert blob.pread(BLOCK, 0) == b"x" * BLOCK
    with pytest.raises(OSError, match="Input/output"):
        blob.pread(BLOCK, BLOCK)
    blob.engine.device.clear_faults()
    assert blob.pread(CLUSTER, 0) == b"x" * BLOCK + OLD[BLOCK:]
    # The data came back, but a flush has failed: that is not forgotten.
    with pytest.raises(OSError, match="Input/output"):
        blob.flush()


def test_what_cannot_be_completed_holds_up_no_change_of_the_store(blob: Blob) -> None:
    blob.pwrite(b"x" * BLOCK, 0)
    lost = place_of(blob.parent, 0)
    blob.engine.device.plant_fault("read", errno.EIO, offset=lost, length=CLUSTER)
    free = blob.engine.free_clusters
    thin_blob(blob.engine)
    blob.engine.device.clear_faults()
    # The write is lost, and every flush of the volume says so.
    assert blob.engine.free_clusters == free + 1
    assert blob.num_allocated_clusters == 0
    assert blob.pread(CLUSTER, 0) == OLD
    with pytest.raises(OSError, match="Input/output"):
        blob.flush()


def test_what_a_write_has_replaced_is_not_needed_from_the_parent(blob: Blob) -> None:
    lost = place_of(blob.parent, 0) + 5 * BLOCK
    blob.engine.device.plant_fault("read", errno.EIO, offset=lost, length=BLOCK)
    blob.pwrite(b"y" * BLOCK, 5 * BLOCK)
    blob.pwrite(b"x", 0)
    blob.flush()
    blob.engine.device.clear_faults()
    expected = b"x" + OLD[1 : 5 * BLOCK] + b"y" * BLOCK + OLD[6 * BLOCK :]
    assert blob.read_own_cluster(0) == expected


def test_zeroing_a_whole_cluster_needs_nothing_of_the_parent(blob: Blob) -> None:
    blob.engine.device.plant_fault(
        "read", errno.EIO, offset=place_of(blob.parent, 0), length=CLUSTER
    )
    blob.pwrite(b"x" * BLOCK, BLOCK)
    blob.unmap_cluster(0)
    blob.flush()
    assert blob.pread(CLUSTER, 0) == bytes(CLUSTER)


def test_a_lost_write_is_not_tried_again_by_the_flushes_of_others(blob: Blob) -> None:
    other = thin_blob(blob.engine)
    blob.pwrite(b"x" * BLOCK, 0)
    device = blob.engine.device
    device.plant_fault("read", errno.EIO, offset=place_of(blob.parent, 0), length=CLUSTER)
    with pytest.raises(OSError, match="Input/output"):
        blob.flush()
    before = device.injected_faults
    for _ in range(3):
        other.pwrite(b"fine", 0)
        other.flush()
    assert device.injected_faults == before
    # A flush of the whole store, as closing it does, tries, and tells.
    with pytest.raises(OSError, match="copied on write: Input/output"):
        blob.engine.flush()
    blob.engine.settle()
    assert blob.owned() == []


def test_a_hanging_external_parent_holds_up_no_flush_of_others(
    engine: Engine, tmp_path: Path
) -> None:
    """Nothing of a chain over an external snapshot is put off."""
    external = tmp_path / "external"
    external.write_bytes(OLD * 4)
    blob = thin_blob(engine, 4)
    with engine.exclusive():
        blob.set_external_parent(Device(str(external), read_only=True))
    blob.pwrite(b"a", 0)
    take_snapshot(engine, blob)
    with engine.exclusive():
        blob.parent.set_external_parent(Device(str(external), read_only=True, lock=False))
    before = bytes_read(blob)
    blob.pwrite(b"x", 1)
    assert bytes_read(blob) == before + CLUSTER - 1
    assert blob.pread(CLUSTER, 0) == b"ax" + OLD[2:]


def test_filling_from_the_parent_counts_what_was_not_the_blobs_own(blob: Blob) -> None:
    blob.pwrite(b"x", 0)
    assert blob.fill_from_ancestors(0, 4, depth=1, zeros=False) == 3
    assert blob.num_allocated_clusters == 4
    assert blob.read_own_cluster(0) == b"x" + OLD[1:]


def test_every_volume_is_complete_after_a_flush_whoever_writes_meanwhile(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(clusters=800)
    blobs = []
    for _ in range(4):
        blob = thin_blob(engine, 16)
        blob.pwrite(OLD * 16, 0)
        take_snapshot(engine, blob)
        blobs.append(blob)
    stop = threading.Event()

    def write_elsewhere() -> None:
        c = 0
        while not stop.is_set() and c < 16:
            blobs[-1].pwrite(b"y", c * CLUSTER)
            c += 1

    for c in range(16):
        # So that the other writer has clusters to begin in every turn.
        take_snapshot(engine, blobs[-1])
        blobs[0].pwrite(b"x", c * CLUSTER)
        thread = threading.Thread(target=write_elsewhere)
        thread.start()
        engine.flush()
        stop.set()
        thread.join()
        stop.clear()
        before = bytes_written(blobs[0])
        assert blobs[0].fragmap()[c // 8] >> (c % 8) & 1
        assert bytes_written(blobs[0]) == before


def test_no_more_than_the_limit_is_put_off(make_engine: MakeEngine) -> None:
    engine = make_engine(clusters=9000, cluster_size=8192, md_len=128)
    blob = thin_blob(engine, 4200)
    blob.pwrite(b"a" * 8192 * 4200, 0)
    take_snapshot(engine, blob)
    engine.flush()
    for c in range(4096):
        blob.pwrite(b"x", c * 8192)
    before = engine.device.counters["bytes_read"]
    blob.pwrite(b"x", 4096 * 8192)
    assert engine.device.counters["bytes_read"] == before + 8191
    blob.flush()
    assert blob.pread(8192 * 4200, 0) == (b"x" + b"a" * 8191) * 4097 + b"a" * 8192 * 103


def test_writers_readers_flushes_and_snapshots_at_once(make_engine: MakeEngine) -> None:
    """Each thread owns a byte of every block, and counts it up."""
    engine = make_engine(clusters=512)
    blob = thin_blob(engine, 16)
    blob.pwrite(bytes(16 * CLUSTER), 0)
    take_snapshot(engine, blob)
    blocks = 16 * CLUSTER // BLOCK
    stop = threading.Event()
    failures: list[BaseException] = []

    def count_up(mine: int) -> None:
        chosen = random.Random(mine)
        values = [0] * blocks
        while not stop.is_set():
            block = chosen.randrange(blocks)
            at = block * BLOCK + mine
            assert blob.pread(1, at)[0] == values[block]
            values[block] = (values[block] + 1) % 256
            blob.pwrite(bytes([values[block]]), at)
        for block in range(blocks):
            assert blob.pread(1, block * BLOCK + mine)[0] == values[block]

    def flush() -> None:
        while not stop.is_set():
            blob.flush()

    def guarded(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [
        threading.Thread(target=guarded, args=(act,))
        for act in [*(lambda m=m: count_up(m) for m in range(4)), flush, flush]
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 2
    snapshots = []
    while time.monotonic() < end and not stop.is_set() and len(snapshots) < 20:
        time.sleep(0.05)
        snapshots.append(take_snapshot(engine, blob))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert len(snapshots) > 3
