"""Space of the host is reserved for a cluster that small writes begin to fill."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvolfs._native.blob import Blob
from tests.loop_device import loop_device

from .conftest import CLUSTER, MakeEngine, thin_blob

BLOCK = 4096


def host_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own: what a full one does is of interest, too."""
    image, where = tmp_path / "ext4.img", tmp_path / "ext4"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", image], check=True)
    where.mkdir()
    with loop_device(image) as device:
        subprocess.run(["mount", device, where], check=True)
        try:
            yield where
        finally:
            subprocess.run(["umount", "--lazy", where], check=True)


def fill_host(directory: Path, *, but: int) -> None:
    """Leaves so many bytes, rounded down to blocks."""
    with (directory / "filler").open("wb") as file:
        free = shutil.disk_usage(directory).free
        os.posix_fallocate(file.fileno(), 0, (free - but) // BLOCK * BLOCK)


def blob_on(path: Path, make_engine: MakeEngine) -> Blob:
    blob = thin_blob(make_engine(path=path))
    # The first cluster of an extent takes metadata along.
    blob.pwrite(b"x", 0)
    blob.flush()
    return blob


@pytest.mark.needs_loop_devices
def test_the_second_small_write_reserves_the_whole_cluster(
    ext4: Path, make_engine: MakeEngine
) -> None:
    store = ext4 / "store"
    blob = blob_on(store, make_engine)
    before = host_bytes(store)
    blob.pwrite(b"1" * BLOCK, CLUSTER)
    assert host_bytes(store) - before < CLUSTER // 2
    blob.pwrite(b"2" * BLOCK, CLUSTER + 3 * BLOCK)
    assert host_bytes(store) - before >= CLUSTER
    expected = b"1" * BLOCK + bytes(2 * BLOCK) + b"2" * BLOCK
    assert blob.pread(CLUSTER, CLUSTER) == expected.ljust(CLUSTER, b"\0")


@pytest.mark.needs_loop_devices
def test_clusters_with_one_small_write_each_take_only_that_of_the_host(
    ext4: Path, make_engine: MakeEngine
) -> None:
    store = ext4 / "store"
    blob = blob_on(store, make_engine)
    before = host_bytes(store)
    for c in range(1, 20):
        blob.pwrite(b"1", c * CLUSTER)
    assert host_bytes(store) - before < 20 * CLUSTER // 4


@pytest.mark.needs_loop_devices
def test_a_host_that_is_nearly_full_keeps_its_room_for_what_is_written(
    ext4: Path, make_engine: MakeEngine
) -> None:
    store = ext4 / "store"
    blob = blob_on(store, make_engine)
    fill_host(ext4, but=4 * CLUSTER)
    before = host_bytes(store)
    for c in range(1, 9):
        blob.pwrite(b"1" * BLOCK, c * CLUSTER)
        blob.pwrite(b"2" * BLOCK, c * CLUSTER + BLOCK)
        blob.flush()
    assert host_bytes(store) - before < 4 * CLUSTER
    assert blob.engine.device.counters["errors"] == 0
    for c in range(1, 9):
        assert blob.pread(3 * BLOCK, c * CLUSTER) == b"1" * BLOCK + b"2" * BLOCK + bytes(BLOCK)


def test_a_store_in_memory_takes_no_more_of_it_than_is_written(make_engine: MakeEngine) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        store = Path(directory) / "store"
        blob = blob_on(store, make_engine)
        before = host_bytes(store)
        for number in range(3):
            blob.pwrite(b"1" * BLOCK, CLUSTER + number * BLOCK)
        assert host_bytes(store) - before == 3 * BLOCK
