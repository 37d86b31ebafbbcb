"""truncate(2) and ftruncate(2): both ways, in whole clusters."""

import os

import pytest

from tests.mount.conftest import MIB, Mounted, pattern, run


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (1, MIB), (MIB, MIB), (3 * MIB + 1, 4 * MIB)])
def test_sizes_are_whole_clusters(mounted: Mounted, asked: int, given: int) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, asked)
    assert file.stat().st_size == given
    mounted.restart()
    assert file.stat().st_size == given


def test_what_was_cut_off_reads_as_zeros_after_growing(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(4 * MIB))
    os.truncate(file, 2 * MIB)
    assert file.stat().st_blocks == 2 * 2048
    os.truncate(file, 4 * MIB)
    assert file.read_bytes() == pattern(4 * MIB)[: 2 * MIB] + bytes(2 * MIB)


def test_an_open_file_sees_its_new_size(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    with file.open("w+b", buffering=0) as raw:
        raw.truncate(8 * MIB)
        assert os.fstat(raw.fileno()).st_size == 8 * MIB
        raw.truncate(2 * MIB)
        assert raw.seek(0, os.SEEK_END) == 2 * MIB


def test_what_cannot_be(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    with pytest.raises(OSError, match="File too large"):
        os.truncate(file, 1 << 62)
    assert file.stat().st_size == 0
    assert "Invalid argument" in run("truncate", "-s", "-5", file, check=False) or (
        file.stat().st_size == 0
    )
