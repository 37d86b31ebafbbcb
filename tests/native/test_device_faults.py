"""Errors of the device: who is told, what stays, and that nothing goes on as if nothing was."""

import errno
from pathlib import Path

import pytest

from lvolfs._native.device import Device
from lvolfs._native.engine import Engine
from tests.native.conftest import CLUSTER, MakeEngine, thin_blob


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    path = tmp_path / "device"
    path.write_bytes(bytes(1 << 20))
    return Device(str(path))


def test_only_tests_plant_faults(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LVOLFS_SEEDED_FAULTS")
    with pytest.raises(PermissionError):
        device.plant_fault("read", errno.EIO)
    assert device.pread(1, 0) == b"\0"
    assert device.injected_faults == 0


def test_a_fault_hits_its_range_its_number_and_its_operation(device: Device) -> None:
    device.plant_fault("write", errno.EIO, offset=8192, length=4096, skip=1, times=2)
    device.pwrite(b"x" * 4096, 4096)
    device.pwrite(b"x", 8192)
    for offset in (8192, 12287):
        with pytest.raises(OSError, match=f"write at byte {offset}: Input/output error") as info:
            device.pwrite(b"y", offset)
        assert info.value.errno == errno.EIO
        assert info.value.filename == device.path
    device.pwrite(b"z", 8192)
    assert device.pread(1, 8192) == b"z"
    device.flush()
    assert device.injected_faults == 2


def test_zeroing_is_writing(device: Device) -> None:
    device.pwrite(b"x" * 4096, 0)
    device.plant_fault("write", errno.EIO, times=1)
    with pytest.raises(OSError, match="zeroing at byte 0"):
        device.zero(0, 4096)
    assert device.pread(4096, 0) == b"x" * 4096


def test_cleared_faults_are_gone(device: Device) -> None:
    device.plant_fault("flush", errno.EIO)
    with pytest.raises(OSError, match="flush"):
        device.flush()
    device.clear_faults()
    device.flush()


def test_a_lost_write_fails_the_flushes_of_its_blob_alone(engine: Engine) -> None:
    one, other = thin_blob(engine), thin_blob(engine)
    one.pwrite(b"before", 0)
    other.pwrite(b"before", 0)
    engine.flush()
    engine.device.plant_fault("write", errno.EIO, times=1)
    with pytest.raises(OSError, match="write of 5 bytes at 0") as info:
        one.pwrite(b"after", 0)
    assert info.value.errno == errno.EIO
    one.pwrite(b"later", 4096)  # the device works again
    for _ in range(2):
        with pytest.raises(OSError, match="flush"):
            one.flush()
    other.flush()
    assert (one.failed, other.failed, engine.failed) == (errno.EIO, 0, 0)
    assert one.pread(6, 0) == b"before"


@pytest.mark.parametrize("error", [errno.EIO, errno.ENODEV, errno.ENXIO])
def test_whatever_a_device_says_that_goes_away(engine: Engine, error: int) -> None:
    blob = thin_blob(engine)
    engine.device.plant_fault("write", error)
    with pytest.raises(OSError, match="write") as info:
        blob.pwrite(b"lost", 0)
    assert info.value.errno == error
    with pytest.raises(OSError, match="flush") as info:
        blob.flush()
    assert info.value.errno == error
    # the cluster that was to hold it is free again
    assert blob.num_allocated_clusters == 0


def test_no_room_below_is_not_a_lost_write(engine: Engine) -> None:
    """Its writer was told; once there is room again everything goes on."""
    blob = thin_blob(engine)
    free = engine.free_clusters
    engine.device.plant_fault("write", errno.ENOSPC, times=1)
    with pytest.raises(OSError, match="No space left"):
        blob.pwrite(b"x", 0)
    assert engine.free_clusters == free
    blob.pwrite(b"y", 0)
    blob.flush()


def test_a_failed_barrier_fails_the_store(make_engine: MakeEngine) -> None:
    """After fdatasync failed once the kernel may have dropped the pages: never say yes again."""
    engine = make_engine()
    blob = thin_blob(engine)
    blob.pwrite(b"before", 0)
    blob.flush()
    blob.pwrite(b"lost", CLUSTER)
    engine.device.plant_fault("flush", errno.EIO, times=1)
    for _ in range(3):
        with pytest.raises(OSError, match="flush") as info:
            blob.flush()
        assert info.value.errno == errno.EIO
    assert engine.failed == errno.EIO
    with pytest.raises(OSError, match="write") as info:
        blob.pwrite(b"more", 0)
    assert info.value.errno == errno.EIO
    assert blob.pread(6, 0) == b"before"


def test_metadata_that_cannot_be_written_stay_to_be_written(engine: Engine) -> None:
    """An extent page that fails is no half commit: the next flush writes it."""
    blob = thin_blob(engine)
    engine.flush()
    blob.pwrite(b"data", 0)
    engine.device.plant_fault("write", errno.EIO, offset=0, length=2 * CLUSTER, times=1)
    with pytest.raises(OSError, match="flush"):
        engine.flush()
    assert engine.failed == 0
    engine.flush()
    assert not engine.dirty


def test_a_root_that_cannot_be_written_fails_the_store(engine: Engine) -> None:
    """Whether the old or the new first page is there is not known: nothing is written after."""
    blob = thin_blob(engine)
    engine.flush()
    root = 4 * 4096 + 4096 * blob.chain[0]
    engine.device.plant_fault("write", errno.EIO, offset=root, length=4096)
    with pytest.raises(OSError, match="metadata of blob"), engine.exclusive():
        engine.persist(blob)
    assert engine.failed == errno.EIO
    with pytest.raises(OSError, match="write"):
        blob.pwrite(b"x", 0)


def test_a_read_error_is_the_readers_alone(engine: Engine) -> None:
    blob = thin_blob(engine)
    blob.pwrite(b"one", 0)
    blob.pwrite(b"two", CLUSTER)
    where = int.from_bytes(blob.resolve(0, 1), "little") * CLUSTER
    engine.device.plant_fault("read", errno.EIO, offset=where, length=CLUSTER)
    with pytest.raises(OSError, match="read of 3 bytes at 0"):
        blob.pread(3, 0)
    assert blob.pread(3, CLUSTER) == b"two"
    blob.pwrite(b"new", 0)
    blob.flush()
    engine.device.clear_faults()
    assert blob.pread(3, 0) == b"new"


def test_a_file_that_shrinks(engine: Engine, tmp_path: Path) -> None:
    """A short read is an error, not zeros."""
    blob = thin_blob(engine)
    blob.pwrite(b"one", 0)
    engine.flush()
    where = int.from_bytes(blob.resolve(0, 1), "little") * CLUSTER
    with (tmp_path / "store.img").open("r+b") as file:
        file.truncate(where + 2)
    assert blob.pread(2, 0) == b"on"
    with pytest.raises(OSError, match="read of 3 bytes at 0") as info:
        blob.pread(3, 0)
    assert info.value.errno == errno.EIO
