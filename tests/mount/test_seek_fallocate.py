"""Holes: lseek(SEEK_DATA, SEEK_HOLE) and fallocate(2)."""

import errno
import os

import pytest

from tests.mount.conftest import MIB, Mounted, fails, pattern
from tests.mount.fallocate import COLLAPSE_RANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate


def extents(descriptor: int) -> list[tuple[int, int]]:
    """(start, end) of the data, in MiB."""
    found = []
    offset = 0
    while True:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return found
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append((start / MIB, offset / MIB))


def test_seek_follows_the_cluster_map_through_the_chain(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 10 * MIB)
    with file.open("r+b", buffering=0) as raw:
        os.pwrite(raw.fileno(), b"x", 2 * MIB)
        os.pwrite(raw.fileno(), b"x", 3 * MIB)
        assert extents(raw.fileno()) == [(2, 4)]
        os.setxattr(file, "user.lvolfs.snapshot", b"s")
        os.pwrite(raw.fileno(), b"x", 8 * MIB)
        assert extents(raw.fileno()) == [(2, 4), (8, 9)]
        assert os.lseek(raw.fileno(), 9 * MIB, os.SEEK_HOLE) == 9 * MIB
        with fails(errno.ENXIO):
            os.lseek(raw.fileno(), 10 * MIB, os.SEEK_DATA)
    with (mounted.snapshots / "s").open("rb") as raw:
        assert extents(raw.fileno()) == [(2, 4)]


def test_punching_frees_whole_clusters_and_zeroes_edges(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    data = bytearray(pattern(6 * MIB))
    file.write_bytes(data)
    free = os.statvfs(mounted.path).f_bfree
    with file.open("r+b", buffering=0) as raw:
        fallocate(raw.fileno(), PUNCH_HOLE | KEEP_SIZE, MIB + 100, 3 * MIB)
    data[MIB + 100 : 4 * MIB + 100] = bytes(3 * MIB)
    assert file.read_bytes() == data
    assert file.stat().st_blocks * 512 == 4 * MIB
    os.sync()
    with file.open("rb") as raw:
        os.fsync(raw.fileno())
    assert os.statvfs(mounted.path).f_bfree == free + 2


def test_punching_past_the_end_is_harmless(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(2 * MIB))
    with file.open("r+b", buffering=0) as raw:
        fallocate(raw.fileno(), PUNCH_HOLE | KEEP_SIZE, MIB, 100 * MIB)
        fallocate(raw.fileno(), PUNCH_HOLE | KEEP_SIZE, 50 * MIB, MIB)
    assert file.read_bytes() == pattern(2 * MIB)[:MIB] + bytes(MIB)


def test_punching_over_a_parent_shows_zeros(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(3 * MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    with file.open("r+b", buffering=0) as raw:
        fallocate(raw.fileno(), PUNCH_HOLE | KEEP_SIZE, MIB, MIB)
    assert file.read_bytes()[MIB : 2 * MIB] == bytes(MIB)
    assert (mounted.snapshots / "s").read_bytes() == pattern(3 * MIB)


def test_preallocating(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    with file.open("r+b", buffering=0) as raw:
        fallocate(raw.fileno(), 0, 0, 5 * MIB - 3)
    assert (file.stat().st_size, file.stat().st_blocks * 512) == (5 * MIB, 5 * MIB)
    assert file.read_bytes() == bytes(5 * MIB)


def test_preallocating_keeps_what_the_parent_shows(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(2 * MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    with file.open("r+b", buffering=0) as raw:
        fallocate(raw.fileno(), KEEP_SIZE, 0, 2 * MIB)
    assert file.stat().st_blocks * 512 == 2 * MIB
    assert file.read_bytes() == pattern(2 * MIB)


def test_zeroing_a_range(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(3 * MIB))
    with file.open("r+b", buffering=0) as raw:
        fallocate(raw.fileno(), ZERO_RANGE, MIB - 5, MIB)
        fallocate(raw.fileno(), ZERO_RANGE, 3 * MIB, MIB)
    data = bytearray(pattern(3 * MIB)) + bytes(MIB)
    data[MIB - 5 : 2 * MIB - 5] = bytes(MIB)
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("mode", "offset", "length"),
    [(COLLAPSE_RANGE, 0, MIB), (KEEP_SIZE, MIB, MIB)],
    ids=["collapse", "space behind the end"],
)
def test_what_a_volume_cannot(mounted: Mounted, mode: int, offset: int, length: int) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    with file.open("r+b", buffering=0) as raw, fails(errno.EOPNOTSUPP):
        fallocate(raw.fileno(), mode, offset, length)
    assert file.read_bytes() == pattern(MIB)
