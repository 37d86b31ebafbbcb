"""Backing files stay in memory while they are measured."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from bench.page_cache import data_ranges, kept_warm, warm
from bench.processes import ProgramError

MIB = 1 << 20


def resident(path: Path) -> int:
    """Bytes of the file in the page cache."""
    words = ("fincore", "--bytes", "--noheadings", "--output", "RES", path)
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def drop(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """8 MiB with data in [1, 3) and [5, 6) MiB."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        for start, count in ((1, 2), (5, 1)):
            file.seek(start * MIB)
            file.write(b"x" * count * MIB)
        os.fsync(file.fileno())
    return path


def test_the_data_of_a_sparse_file_are_found(sparse: Path) -> None:
    with sparse.open("rb") as file:
        assert list(data_ranges(file.fileno())) == [(MIB, 3 * MIB), (5 * MIB, 6 * MIB)]


def test_a_file_of_holes_has_no_data(tmp_path: Path) -> None:
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(MIB)
    with path.open("rb") as file:
        assert list(data_ranges(file.fileno())) == []


def test_a_warmed_file_is_in_the_page_cache(sparse: Path) -> None:
    drop(sparse)
    warm(sparse)
    assert resident(sparse) >= 3 * MIB


def test_what_is_kept_warm_cannot_be_dropped(sparse: Path) -> None:
    drop(sparse)
    with kept_warm(sparse):
        drop(sparse)
        assert resident(sparse) >= 3 * MIB


def test_a_limit_on_locked_memory_is_told(sparse: Path) -> None:
    """As an ordinary user, whom the limit binds."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        sparse.chmod(0o644)
        if os.geteuid() == 0:
            os.setgroups([])
            descriptor = os.open(sparse, os.O_RDONLY)
            os.setuid(65534)
            path = Path(f"/proc/self/fd/{descriptor}")
        else:
            path = sparse
        status = 1
        try:
            with kept_warm(path):
                pass
        except ProgramError as error:
            status = 0 if "ulimit -l" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
