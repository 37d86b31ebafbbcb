import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvolfs._native.device import Device
from tests.loop_device import loop_device


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.write_bytes(bytes(range(256)) * 64)
    return path


def test_reads_back_what_was_written(file: Path) -> None:
    with Device(str(file)) as device:
        device.pwrite(b"lvolfs", 1000)
        assert device.pread(6, 1000) == b"lvolfs"
        device.flush()


def test_a_second_writer_is_refused_and_told_who_holds_it(file: Path) -> None:
    with Device(str(file)), pytest.raises(OSError, match=rf"in use by .*pid {os.getpid()}") as got:
        Device(str(file))
    assert got.value.errno == errno.EBUSY


def test_readers_share_but_exclude_a_writer(file: Path) -> None:
    readers = [Device(str(file), read_only=True) for _ in range(2)]
    with readers[0], readers[1], pytest.raises(OSError, match="in use by"):
        Device(str(file))


def test_the_lock_goes_with_the_device(file: Path) -> None:
    Device(str(file)).close()
    Device(str(file)).close()


def test_a_directory_is_not_a_device(tmp_path: Path) -> None:
    with pytest.raises(OSError) as got:  # noqa: PT011 - which errno is the kernel's choice
        Device(str(tmp_path))
    assert got.value.errno in {errno.EISDIR, errno.EINVAL}


def test_a_character_device_is_refused() -> None:
    with pytest.raises(OSError, match="neither a regular file nor a block device") as got:
        Device("/dev/null")
    assert got.value.errno == errno.EINVAL


def test_neither_reads_nor_writes_past_the_end(file: Path) -> None:
    size = file.stat().st_size
    with Device(str(file)) as device:
        with pytest.raises(OSError, match="past the end"):
            device.pread(2, size - 1)
        with pytest.raises(OSError, match="past the end"):
            device.pwrite(b"ab", size - 1)
    assert file.stat().st_size == size


def test_a_file_that_shrank_is_an_io_error(file: Path) -> None:
    with Device(str(file)) as device:
        os.truncate(file, 100)
        with pytest.raises(OSError, match="has become smaller by") as got:
            device.pread(200, 0)
        assert got.value.errno == errno.EIO
        with pytest.raises(OSError, match="has become smaller by") as got:
            device.flush()
        assert got.value.errno == errno.ENXIO


def test_zeroed_ranges_read_as_zeros_and_free_the_space(tmp_path: Path) -> None:
    path = tmp_path / "device"
    path.write_bytes(b"\xff" * (1 << 20))
    with Device(str(path)) as device:
        device.zero(4096, 1 << 19)
        assert device.pread(1 << 19, 4096) == bytes(1 << 19)
        assert device.pread(4096, 0) == b"\xff" * 4096
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_closed_device_says_so(file: Path) -> None:
    device = Device(str(file))
    device.close()
    with pytest.raises(ValueError, match="closed"):
        device.pread(1, 0)


def test_a_grown_file_is_taken_over_on_request(file: Path) -> None:
    with Device(str(file)) as device:
        before = device.size
        os.truncate(file, before * 2)
        assert device.size == before
        assert device.refresh_size() == before * 2


@pytest.fixture(
    params=["tmpfs", pytest.param("block device", marks=pytest.mark.needs_loop_devices)]
)
def piece(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Where a store may lie, and the bytes of one write to it."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        path = Path(directory) / "device"
        path.write_bytes(bytes(2 << 20))
        if request.param == "tmpfs":
            yield str(path), 1 << 20
            return
        yield stack.enter_context(loop_device(path)), 1 << 14


def test_long_writes_are_cut_as_suits_the_page_cache(piece: tuple[str, int]) -> None:
    """Counted by the kernel: /proc/thread-self/io."""
    path, length = piece

    def writes() -> int:
        lines = Path("/proc/thread-self/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["syscw"])

    with Device(path) as device:
        before = writes()
        device.pwrite(bytes(2 << 20), 0)
        assert writes() - before == (2 << 20) // length
