"""What is on the device after a flush, read back from its pages."""

import errno
import os
import struct
import threading
import time

import pytest

from lvolfs._native.blob import Blob
from lvolfs._native.engine import Engine

from .conftest import CLUSTER, HEAD, MD_START, MakeEngine, flat, take_snapshot, thin_blob


def crc32c(data: bytes) -> int:
    """Castagnoli, bit by bit: independent of the library that the code uses."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def chain_pages(engine: Engine, blob: Blob) -> list[bytes]:
    """The chain as `next` links it, each page checked."""
    pages, index, sequence = [], blob.id & 0xFFFFFFFF, 0
    while index != 0xFFFFFFFF:
        page = engine.read_page(index)
        blob_id, number = struct.unpack_from("<QI", page)
        assert (blob_id, number) == (blob.id, sequence)
        assert struct.unpack_from("<I", page, 4092)[0] == crc32c(page[:4092])
        pages.append(page)
        (index,) = struct.unpack_from("<I", page, 4088)
        sequence += 1
    return pages


def descriptors(pages: list[bytes]) -> list[tuple[int, bytes]]:
    found = []
    for page in pages:
        area, at = page[16:4088], 0
        while at + 5 <= len(area):
            kind, length = struct.unpack_from("<BI", area, at)
            if (kind, length) == (0, 0):
                break
            found.append((kind, area[at + 5 : at + 5 + length]))
            at += 5 + length
    return found


def extent_table(engine: Engine, blob: Blob) -> tuple[int, dict[int, int]]:
    num_clusters, extent, pages = 0, 0, {}
    for kind, payload in descriptors(chain_pages(engine, blob)):
        if kind == 5:
            (num_clusters,) = struct.unpack_from("<Q", payload)
            for page, run in struct.iter_unpack("<II", payload[8:]):
                if page:
                    pages[extent] = page
                extent += run
    assert extent == -(-num_clusters // 512)
    return num_clusters, pages


def test_crc32c_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_new_blob_is_one_page_with_an_rle_table(engine: Engine) -> None:
    blob = thin_blob(engine, 1500)
    assert len(chain_pages(engine, blob)) == 1
    assert descriptors(chain_pages(engine, blob)) == [
        (3, HEAD[5:]),
        (5, struct.pack("<QII", 1500, 0, 3)),
    ]


def test_an_empty_blob_still_has_a_table(engine: Engine) -> None:
    blob = thin_blob(engine, 0)
    assert descriptors(chain_pages(engine, blob))[-1] == (5, struct.pack("<Q", 0))


def test_a_flush_writes_map_and_table(engine: Engine) -> None:
    blob = thin_blob(engine, 1030)
    blob.pwrite(b"x", 1025 * CLUSTER)
    blob.pwrite(b"x", 3 * CLUSTER)
    engine.flush()
    num_clusters, pages = extent_table(engine, blob)
    assert num_clusters == 1030
    assert pages == blob.extent_pages
    assert sorted(pages) == [0, 2]
    last = engine.read_page(pages[2])
    assert struct.unpack_from("<BII", last, 16) == (6, 4 + 4 * 6, 1024)
    clusters, bad = engine.load_extents(pages, num_clusters)
    assert not bad
    assert flat(clusters, blob.num_clusters) == blob.clusters()


def test_nothing_is_written_before_the_flush_but_data(engine: Engine) -> None:
    blob = thin_blob(engine)
    before = engine.read_page(blob.id & 0xFFFFFFFF)
    blob.pwrite(b"x", 0)
    assert engine.read_page(blob.id & 0xFFFFFFFF) == before
    engine.flush()
    assert engine.read_page(blob.id & 0xFFFFFFFF) != before


def test_the_flusher_commits_by_itself(engine: Engine) -> None:
    blob = thin_blob(engine)
    engine.start_flusher(0.02)
    blob.pwrite(b"x", 0)
    deadline = time.monotonic() + 10
    while engine.dirty and time.monotonic() < deadline:
        time.sleep(0.01)
    engine.stop_flusher()
    _, pages = extent_table(engine, blob)
    assert pages == blob.extent_pages
    assert 0 in pages


def test_the_flusher_leaves_data_overwritten_in_place_to_the_host_for_a_while(
    engine: Engine,
) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"x", 0)
    engine.flush()
    assert not engine.dirty
    flushes = engine.device.counters["flushes"]
    engine.start_flusher(0.2)
    blob.pwrite(b"y", 0)
    time.sleep(0.6)
    assert engine.dirty
    assert engine.device.counters["flushes"] == flushes
    blob.pwrite(b"z", CLUSTER)
    deadline = time.monotonic() + 20
    while engine.dirty and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.stop_flusher()
    assert not engine.dirty
    assert engine.device.counters["flushes"] > flushes


def test_the_flusher_gives_the_host_its_while_after_a_long_rest_too(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"x", 0)
    engine.flush()
    flushes = engine.device.counters["flushes"]
    engine.start_flusher(0.05)
    time.sleep(2.5)  # more intervals than data without a change of maps are left alone
    blob.pwrite(b"y", 0)
    time.sleep(0.3)
    assert engine.dirty
    assert engine.device.counters["flushes"] == flushes
    deadline = time.monotonic() + 20
    while engine.dirty and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.stop_flusher()
    assert engine.device.counters["flushes"] > flushes


def test_data_overwritten_in_place_are_flushed_when_asked_for(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"x", 0)
    engine.flush()
    flushes = engine.device.counters["flushes"]
    engine.flush()
    assert engine.device.counters["flushes"] == flushes
    blob.pwrite(b"y", 0)
    assert engine.dirty
    engine.flush()
    assert engine.device.counters["flushes"] == flushes + 1


def test_a_long_head_makes_a_chain_and_frees_the_old_pages(engine: Engine) -> None:
    xattrs = b"".join(
        struct.pack("<BIHH", 2, 4 + 4 + 3000, 4, 3000) + b"x%03d" % i + bytes([i]) * 3000
        for i in range(5)
    )
    blob = thin_blob(engine)
    free = engine.free_pages
    for _ in range(10):
        with engine.exclusive():
            blob.set_head(HEAD + xattrs)
            engine.persist(blob)
        assert len(chain_pages(engine, blob)) == 5
        assert engine.free_pages == free - 4
    assert (
        b"".join(
            struct.pack("<BI", kind, len(data)) + data
            for kind, data in descriptors(chain_pages(engine, blob))
            if kind != 5
        )
        == HEAD + xattrs
    )
    with engine.exclusive():
        blob.set_head(HEAD)
        engine.persist(blob)
    assert engine.free_pages == free


def test_checksum_records_are_split_over_pages(engine: Engine) -> None:
    records = b"".join(struct.pack("<QI", n + 1, 1) for n in range(1000))
    blob = thin_blob(engine)
    with engine.exclusive():
        blob.set_checksums(records)
        engine.persist(blob)
    kept = [data for kind, data in descriptors(chain_pages(engine, blob)) if kind == 7]
    assert len(kept) > 1
    assert all(len(data) % 12 == 0 for data in kept)
    assert b"".join(kept) == records


def test_rle_blobs_stay_rle(engine: Engine) -> None:
    head = struct.pack("<BIQQQ", 3, 24, 0b001, 0, 0)
    first = engine.metadata_clusters
    clusters = struct.pack("<6I", first + 3, first + 4, 0, 0, first + 9, 0)
    blob = engine.adopt_blob(
        (1 << 32) | 7,
        num_clusters=6,
        clusters={0: clusters},
        extent_pages={},
        chain=[7],
        head=head,
        thin=True,
        read_only=False,
        rle=True,
    )
    blob.pwrite(b"x" * 2 * CLUSTER, 2 * CLUSTER)
    engine.flush()
    own = struct.unpack("<6I", blob.clusters())
    assert all(own[:5])
    runs = []
    for kind, data in descriptors(chain_pages(engine, blob)):
        assert kind != 5
        if kind == 1:
            runs += list(struct.iter_unpack("<II", data))
    expanded = [start + step if start else 0 for start, length in runs for step in range(length)]
    assert tuple(expanded) == own


def test_the_super_block_is_marked_dirty_before_the_first_change(engine: Engine) -> None:
    page = bytearray(4096)
    page[:8] = b"SPDKBLOB"
    page[16] = 1
    struct.pack_into("<I", page, 4092, crc32c(bytes(page[:4092])))
    engine.write_superblock(bytes(page))
    thin_blob(engine)
    now = engine.device.pread(4096, 0)
    assert now[16:20] == bytes(4)
    assert struct.unpack_from("<I", now, 4092)[0] == crc32c(now[:4092])


def test_destroy_leaves_no_root_and_gives_everything_back(engine: Engine) -> None:
    free = engine.free_clusters, engine.free_pages
    blob = thin_blob(engine)
    blob.pwrite(b"x" * 5 * CLUSTER, 0)
    engine.flush()
    root = blob.id & 0xFFFFFFFF
    with engine.exclusive():
        engine.destroy(blob)
    assert engine.read_page(root) == bytes(4096)
    assert (engine.free_clusters, engine.free_pages) == free
    assert engine.scan_pages() == []
    with pytest.raises(OSError, match="Invalid argument"):
        blob.pread(1, 0)


def test_thick_blobs_own_everything_or_nothing_is_claimed(engine: Engine) -> None:
    free = engine.free_clusters, engine.free_pages
    with engine.exclusive():
        with pytest.raises(OSError, match="No space left") as got:
            engine.create_blob(1000, thin=False, head=HEAD)
        assert got.value.errno == errno.ENOSPC
        assert (engine.free_clusters, engine.free_pages) == free
        blob = engine.create_blob(10, thin=False, head=HEAD)
        engine.persist(blob)
    assert blob.num_allocated_clusters == 10
    assert blob.pread(blob.size, 0) == bytes(blob.size)
    blob.unmap(0, blob.size)
    assert blob.num_allocated_clusters == 10


@pytest.mark.parametrize("thin", [True, False])
@pytest.mark.parametrize("sizes", [(10, 600, 1), (600, 513, 512), (0, 5, 0), (512, 513, 512)])
def test_resize_keeps_content_and_frees_what_is_cut_off(
    make_engine: MakeEngine, sizes: tuple[int, ...], thin: bool
) -> None:
    engine = make_engine(clusters=1000, cluster_size=4096 * 4, md_len=700)
    free = engine.free_clusters, engine.free_pages
    with engine.exclusive():
        blob = engine.create_blob(sizes[0], thin=thin, head=HEAD)
        engine.persist(blob)
    model = b""
    for size in sizes:
        with engine.exclusive():
            blob.resize(size)
            engine.persist(blob)
        model = model[: blob.size].ljust(blob.size, b"\0")
        assert blob.pread(blob.size, 0) == model
        model = os.urandom(blob.size)
        blob.pwrite(model, 0)
        engine.flush()
        num_clusters, pages = extent_table(engine, blob)
        assert num_clusters == size
        clusters, bad = engine.load_extents(pages, num_clusters)
        assert not bad
        assert flat(clusters, blob.num_clusters) == blob.clusters()
    with engine.exclusive():
        engine.destroy(blob)
    assert (engine.free_clusters, engine.free_pages) == free


@pytest.mark.parametrize(
    ("parent_size", "child_size"), [(32, 32), (600, 600), (10, 600), (600, 10)]
)
def test_merge_moves_what_the_child_lacks(
    make_engine: MakeEngine, parent_size: int, child_size: int
) -> None:
    engine = make_engine(clusters=2000, cluster_size=16384, md_len=200)
    cluster = engine.cluster_size
    free = engine.free_clusters, engine.free_pages
    blob = thin_blob(engine, parent_size)
    for c in (0, 1, 2, 9, parent_size - 1):
        blob.pwrite(b"p" * cluster, c * cluster)
    snapshot = take_snapshot(engine, blob)
    with engine.exclusive():
        blob.resize(child_size)
        engine.persist(blob)
    blob.pwrite(b"c" * cluster, cluster)
    blob.pwrite(b"c" * 10, (child_size - 1) * cluster)
    expected = blob.pread(blob.size, 0)
    with engine.exclusive():
        blob.merge_from(snapshot)
        blob.set_parent(None)
        engine.persist(blob)
        snapshot.drop_shared_with(blob)
        engine.persist(snapshot)
        engine.destroy(snapshot)
    assert blob.pread(blob.size, 0) == expected
    num_clusters, pages = extent_table(engine, blob)
    clusters, bad = engine.load_extents(pages, num_clusters)
    assert not bad
    assert flat(clusters, blob.num_clusters) == blob.clusters()
    used = sum(1 for (n,) in struct.iter_unpack("<I", blob.clusters()) if n)
    assert blob.num_allocated_clusters == used
    assert engine.free_clusters == free[0] - used
    with engine.exclusive():
        engine.destroy(blob)
    assert (engine.free_clusters, engine.free_pages) == free


def test_many_flushes_share_commits_and_none_returns_early(engine: Engine) -> None:
    blob = thin_blob(engine)
    failures: list[BaseException] = []

    def write_and_flush(number: int) -> None:
        try:
            for round_ in range(20):
                c = (number * 7 + round_) % 32
                blob.pwrite(bytes([number]), c * CLUSTER + number)
                engine.flush()
                _, pages = extent_table(engine, blob)
                clusters, bad = engine.load_extents(pages, 32)
                assert not bad
                assert struct.unpack_from("<I", clusters[0], 4 * c)[0]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write_and_flush, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_changes_of_shape_need_exclusive(engine: Engine) -> None:
    blob = thin_blob(engine)
    for attempt in (
        lambda: blob.resize(1),
        lambda: blob.set_head(b""),
        lambda: engine.persist(blob),
        lambda: engine.destroy(blob),
    ):
        with pytest.raises(RuntimeError, match="exclusive"):
            attempt()


def test_exclusive_waits_for_nobody_twice(engine: Engine) -> None:
    with engine.exclusive(), pytest.raises(RuntimeError, match="reentrant"):
        engine.exclusive().__enter__()


def test_a_closed_engine_serves_nothing(engine: Engine) -> None:
    blob = thin_blob(engine)
    engine.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        blob.pread(1, 0)
    with pytest.raises(OSError, match="closed"):
        engine.flush()


def test_adopting_a_cluster_twice_or_past_the_end_marks_nothing(engine: Engine) -> None:
    first = engine.metadata_clusters

    def adopt(blob_id: int, clusters: list[int]) -> Blob:
        return engine.adopt_blob(
            (1 << 32) | blob_id,
            num_clusters=len(clusters),
            clusters={0: struct.pack(f"<{len(clusters)}I", *clusters)},
            extent_pages={0: blob_id + 1},
            chain=[blob_id],
            head=HEAD,
            thin=True,
            read_only=False,
        )

    adopt(1, [first, first + 1])
    free = engine.free_clusters, engine.free_pages
    for clusters, number in [
        ([first + 5, first + 1], errno.EEXIST),
        ([first + 5, first + 5], errno.EEXIST),
        ([first + 5, 1 << 20], errno.ERANGE),
        ([first + 5, first - 1], errno.ERANGE),
    ]:
        with pytest.raises(OSError, match="device cluster") as got:
            adopt(5, clusters)
        assert got.value.errno == number
        assert (engine.free_clusters, engine.free_pages) == free
    with pytest.raises(OSError, match="metadata page 2 is used twice"):
        adopt(2, [first + 7])
    assert (engine.free_clusters, engine.free_pages) == free


def test_a_damaged_extent_page_is_named_and_reads_as_nothing(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"x", 0)
    engine.flush()
    pages = blob.extent_pages
    at = (MD_START + pages[0]) * 4096
    good = engine.device.pread(4096, at)
    for offset in (16, 30, 4092, 4088, 8):
        bad_page = bytearray(good)
        bad_page[offset] ^= 0x10
        engine.device.pwrite(bytes(bad_page), at)
        clusters, bad = engine.load_extents(pages, 32)
        assert bad == [(0, f"page {pages[0]}: wrong CRC")]
        assert clusters == {}
    assert engine.load_extents({0: 1 << 20}, 32)[1] == [
        (0, "page 1048576 is past the end of the metadata")
    ]


def test_scan_finds_exactly_the_valid_pages(make_engine: MakeEngine) -> None:
    engine = make_engine(clusters=3000, md_len=3000)
    blobs = [thin_blob(engine, 4) for _ in range(3)]
    blobs[1].pwrite(b"x", 0)
    engine.flush()
    expected = sorted([blob.id & 0xFFFFFFFF for blob in blobs] + [blobs[1].extent_pages[0]])
    assert [index for index, _ in engine.scan_pages()] == expected
    assert all(page == engine.read_page(index) for index, page in engine.scan_pages())
    assert [index for index, _ in engine.scan_pages(1, 1)] == [1]


def test_a_host_without_space_fails_the_write_and_recovers(engine: Engine) -> None:
    """RLIMIT_FSIZE stands in for a full host: writes past it fail with EFBIG."""
    import resource
    import signal

    blob = thin_blob(engine)
    blob.pwrite(b"a" * CLUSTER, 0)
    engine.flush()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((engine.metadata_clusters + 1) * CLUSTER, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            blob.pwrite(b"b" * CLUSTER, 5 * CLUSTER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert blob.num_allocated_clusters == 1
    assert blob.pread(CLUSTER, 5 * CLUSTER) == bytes(CLUSTER)
    blob.pwrite(b"b" * CLUSTER, 5 * CLUSTER)
    engine.flush()
    assert blob.pread(CLUSTER, 0) == b"a" * CLUSTER
    assert blob.pread(CLUSTER, 5 * CLUSTER) == b"b" * CLUSTER


def test_snapshots_share_extent_pages_with_nobody(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"x", 0)
    snapshot = take_snapshot(engine, blob)
    blob.pwrite(b"y", 0)
    engine.flush()
    assert not set(blob.extent_pages.values()) & set(snapshot.extent_pages.values())
