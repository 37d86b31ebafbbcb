"""File systems of the kernel on a loop device over a volume file."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MIB, Mounted, pattern, run
from tests.mount.kernel_file_systems import KINDS, loop_mount

pytestmark = pytest.mark.needs_loop_devices


def _fill(where: Path) -> None:
    for number in range(40):
        (where / f"file{number}").write_bytes(pattern(20000 * (number + 1), number))
    for number in range(0, 40, 3):
        (where / f"file{number}").unlink()


def _check(where: Path) -> None:
    for number in range(40):
        path = where / f"file{number}"
        if number % 3:
            assert path.read_bytes() == pattern(20000 * (number + 1), number), path
        else:
            assert not path.exists()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
@pytest.mark.parametrize(("kind", "size", "make", "check"), KINDS, ids=["ext4", "xfs"])
def test_a_file_system_over_a_volume(  # noqa: PLR0917
    make_mounted: Callable[..., Mounted],
    kind: str,
    size: int,
    make: list[str],
    check: list[str],
    direct: bool,
) -> None:
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "-q", kind], check=False)
        if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
            pytest.skip(f"the kernel lacks {kind}")
    mounted = make_mounted(size=512 * MIB)
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, size * MIB)
    run(*make, file)
    inside = mounted.directory / "inside"
    with loop_mount(file, inside, kind, direct=direct):
        _fill(inside)
        run("sync", "-f", inside)
        os.setxattr(file, "user.lvolfs.snapshot", b"s")  # while it is mounted and in use
        (inside / "after").write_bytes(pattern(MIB))
    run(*check, file)
    mounted.restart()
    run(*check, file)
    os.setxattr(mounted.snapshots / "s", "user.lvolfs.clone", b"c")
    with loop_mount(file, inside, kind, direct=direct):
        _check(inside)
        assert (inside / "after").read_bytes() == pattern(MIB)
    # The clone is what a power cut at the snapshot would have left: it replays its journal.
    with loop_mount(mounted.volumes / "c", inside, kind, direct=direct):
        _check(inside)
    run(*check, mounted.volumes / "c")


def test_discard_frees_clusters(make_mounted: Callable[..., Mounted]) -> None:
    mounted = make_mounted(size=256 * MIB)
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 128 * MIB)
    run("mkfs.ext4", "-q", "-F", file)
    inside = mounted.directory / "inside"
    with loop_mount(file, inside, "ext4", direct=True):
        (inside / "big").write_bytes(pattern(64 * MIB))
        run("sync", "-f", inside)
        full = file.stat().st_blocks
        (inside / "big").unlink()
        run("sync", "-f", inside)
        run("fstrim", inside)
        assert file.stat().st_blocks < full - 40 * 2048
    run("fsck.ext4", "-fn", file)
