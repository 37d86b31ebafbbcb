"""Shared writable mappings, although the files bypass the page cache."""

import mmap
import os

import pytest

from tests.mount.conftest import MIB, Mounted, pattern


def test_shared_mapping_and_msync(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(4 * MIB))
    with file.open("r+b") as raw, mmap.mmap(raw.fileno(), 4 * MIB) as mapping:
        assert mapping[:] == pattern(4 * MIB)
        mapping[MIB - 3 : MIB + 3] = b"mapped"
        mapping.flush()
        assert os.pread(raw.fileno(), 6, MIB - 3) == b"mapped"
        os.pwrite(raw.fileno(), b"written", 2 * MIB)
        assert mapping[2 * MIB : 2 * MIB + 7] == b"written"
    mounted.kill()
    mounted.start()
    assert file.read_bytes()[MIB - 3 : MIB + 3] == b"mapped"


def test_dirty_pages_reach_the_store_at_unmount(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 2 * MIB)
    with file.open("r+b") as raw:
        mapping = mmap.mmap(raw.fileno(), 2 * MIB)
        mapping[:] = pattern(2 * MIB)
        mapping.close()
    mounted.restart()
    assert file.read_bytes() == pattern(2 * MIB)


def test_mapping_a_snapshot(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    with (mounted.snapshots / "s").open("rb") as raw:
        with pytest.raises(PermissionError):
            mmap.mmap(raw.fileno(), MIB, access=mmap.ACCESS_WRITE)
        with mmap.mmap(raw.fileno(), MIB, access=mmap.ACCESS_READ) as mapping:
            file.write_bytes(pattern(MIB, 2))
            assert mapping[:] == pattern(MIB)


def test_a_mapping_shows_what_a_copy_wrote(mounted: Mounted) -> None:
    """Data that come without the kernel's knowledge: seen as soon as it asks for attributes."""
    import time

    source, target = mounted.volumes / "v", mounted.volumes / "copy"
    source.write_bytes(pattern(MIB))
    target.write_bytes(pattern(MIB, 2))
    os.setxattr(source, "user.lvolfs.snapshot", b"s")
    with target.open("rb") as raw, mmap.mmap(raw.fileno(), MIB, access=mmap.ACCESS_READ) as mapping:
        assert mapping[:] == pattern(MIB, 2)
        os.setxattr(mounted.snapshots / "s", "user.lvolfs.copy.start", b"copy")
        deadline = time.monotonic() + 10
        while os.getxattr(mounted.snapshots / "s", "user.lvolfs.copy.state") != b"complete":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        target.stat()
        assert mapping[:] == pattern(MIB)
        assert target.read_bytes() == pattern(MIB)
