"""lvolfs.h: as C and C++, from a C program, and its mirror in Python."""

import ctypes
import errno
import os
import re
import time
from pathlib import Path

import pytest

from lvolfs import ioctls
from tests.mount.conftest import MIB, Mounted, both_transports, fails, pattern, run

HERE = Path(__file__).parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wpedantic"]
INCLUDE = f"-I{ioctls.include_directory()}"

STRUCTURES = {
    ioctls.Info: "lvolfs_info",
    ioctls.Snapshot: "lvolfs_create",
    ioctls.Clone: "lvolfs_create",
    ioctls.ChecksumRegister: "lvolfs_checksum_register",
    ioctls.ChecksumStatus: "lvolfs_checksum_status",
    ioctls.ChecksumGet: "lvolfs_checksum_get",
    ioctls.ChecksumRange: "lvolfs_checksum_range",
    ioctls.Fragmap: "lvolfs_fragmap",
    ioctls.CopyStart: "lvolfs_copy_start",
    ioctls.CopyStatus: "lvolfs_copy_status",
    ioctls.CopyCancel: "lvolfs_copy_cancel",
}


def _constant(kind: type[ioctls.Argument]) -> str:
    return "LVOLFS_IOC_" + re.sub(r"(?<=.)(?=[A-Z])", "_", kind.__name__).upper()


@pytest.mark.parametrize("compiler", [["gcc", "-std=c11", "-xc"], ["g++", "-std=c++17", "-xc++"]])
def test_the_header_compiles_alone_without_warnings(compiler: list[str], tmp_path: Path) -> None:
    source = tmp_path / "alone"
    source.write_text('#include "lvolfs.h"\nint main(void) { return LVOLFS_IOC_INFO == 0; }\n')
    run(*compiler, *WARNINGS, INCLUDE, source, "-o", tmp_path / "out")


def test_python_and_c_agree(tmp_path: Path) -> None:
    """Numbers, sizes, and the place of every member."""
    lines = ['#include "lvolfs.h"', "#include <stddef.h>", "#include <stdio.h>", "int main(void) {"]
    expected = []
    for kind, struct in STRUCTURES.items():
        lines.append(
            f'printf("%lu %zu\\n", (unsigned long){_constant(kind)}, sizeof(struct {struct}));'
        )
        expected.append(f"{kind.request()} {ctypes.sizeof(kind)}")
        for member in kind._fields_:
            lines.append(
                f'printf("{member[0]} %zu %zu\\n", offsetof(struct {struct}, {member[0]}), '
                f"sizeof(((struct {struct} *)0)->{member[0]}));"
            )
            place = getattr(kind, member[0])
            expected.append(f"{member[0]} {place.offset} {place.size}")
    source = tmp_path / "layout.c"
    source.write_text("\n".join([*lines, "return 0; }"]))
    run("gcc", "-std=c11", *WARNINGS, INCLUDE, source, "-o", tmp_path / "layout")
    assert run(tmp_path / "layout").splitlines() == expected
    assert max(ctypes.sizeof(kind) for kind in STRUCTURES) < 16384
    assert set(STRUCTURES) == set(ioctls.ARGUMENTS.values())


@both_transports
def test_a_c_program_drives_every_ioctl(mounted: Mounted, tmp_path: Path) -> None:
    program = tmp_path / "every_ioctl"
    run("gcc", "-std=gnu11", *WARNINGS, INCLUDE, HERE / "every_ioctl.c", "-o", program)
    source = (HERE / "every_ioctl.c").read_text()
    for kind in STRUCTURES:
        assert _constant(kind) in source, f"{_constant(kind)} is not driven"
    data = pattern(6 * MIB)
    (mounted.volumes / "v").write_bytes(data)
    (mounted.volumes / "copy").touch()
    os.truncate(mounted.volumes / "copy", 6 * MIB)
    facts = run(program, mounted.volumes, mounted.snapshots).splitlines()
    assert facts[0] == f"info v parent= children=0 properties={ioctls.THIN}"
    assert f"info s parent= children=2 properties={ioctls.THIN | ioctls.READ_ONLY}" in facts
    assert f"info c parent=s children=0 properties={ioctls.THIN | ioctls.CLONE}" in facts
    assert "fragmap 3f allocated=6" in facts
    assert "fragmap 00 allocated=0" in facts
    checksums = dict(f.split()[1:] for f in facts if f.startswith("cluster "))
    assert len(set(checksums.values())) == 5
    whole = os.getxattr(mounted.snapshots / "s", "user.lvolfs.checksum").decode()
    assert f"checksum {whole}" in facts
    assert (mounted.volumes / "copy").read_bytes() == data


def _wait(file: int, kind: type[ioctls.ChecksumStatus] | type[ioctls.CopyStatus]) -> object:
    deadline = time.monotonic() + 20
    while True:
        status = ioctls.call(file, kind())
        if status.state != ioctls.STATE_IN_PROGRESS:
            return status
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pages_of_checksums_and_fragmaps(make_mounted) -> None:  # type: ignore[no-untyped-def]
    """A volume of more clusters than one call covers."""
    mounted = make_mounted(size=64 * MIB, cluster_size=16384)
    file = mounted.volumes / "v"
    file.touch()
    clusters = 3000
    os.truncate(file, clusters * 16384)
    written = [0, 1, 1023, 1024, 2047, 2999]
    with file.open("r+b", buffering=0) as raw:
        for cluster in written:
            os.pwrite(raw.fileno(), pattern(16384, cluster), cluster * 16384)
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    with (mounted.snapshots / "s").open("rb") as raw:
        ioctls.call(raw, ioctls.ChecksumRegister(start=1000, count=2000))
        assert _wait(raw.fileno(), ioctls.ChecksumStatus).done == 4  # type: ignore[attr-defined]
        found: dict[int, int] = {}
        start = 0
        while start < clusters:
            page = ioctls.call(raw, ioctls.ChecksumRange(start=start, count=clusters - start))
            assert page.count == min(1024, clusters - start)
            assert page.algorithm == ioctls.XXH3
            for position in range(page.count):
                if page.state[position] != ioctls.CLUSTER_UNWRITTEN:
                    found[start + position] = page.state[position]
                assert bool(page.checksum[position]) == (
                    page.state[position] == ioctls.CLUSTER_WRITTEN
                )
            start += page.count
        assert found == {
            c: ioctls.CLUSTER_WRITTEN if c >= 1000 else ioctls.CLUSTER_UNREGISTERED for c in written
        }
        bits = ioctls.call(raw, ioctls.Fragmap(start=1000, count=2000))
        assert bits.allocated == 4
        assert [
            c for c in range(1000, 3000) if bits.bits[(c - 1000) // 8] >> (c - 1000) % 8 & 1
        ] == [c for c in written if c >= 1000]


def test_a_failed_copy_says_why(mounted: Mounted) -> None:
    """The destination's file system is full."""
    file = mounted.volumes / "v"
    file.write_bytes(pattern(8 * MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    small = mounted.directory / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=3M", "none", small)
    try:
        target = small / "target"
        target.touch()
        os.truncate(target, 8 * MIB)
        with (mounted.snapshots / "s").open("rb") as raw:
            ioctls.call(
                raw, ioctls.CopyStart(flags=ioctls.COPY_ALL, destination=os.fsencode(target))
            )
            status = _wait(raw.fileno(), ioctls.CopyStatus)
        assert isinstance(status, ioctls.CopyStatus)
        assert status.state == ioctls.STATE_ERROR
        assert b"No space left" in status.error
        assert 0 < status.copied < 8
    finally:
        run("umount", "-l", small)


def test_names_without_end_are_refused(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    with file.open("rb") as raw, fails(errno.EINVAL):
        ioctls.call(raw, ioctls.Snapshot(name=b"x" * 256))
    with file.open("rb") as raw:
        ioctls.call(raw, ioctls.Snapshot(name=b"x" * 255))
    assert (mounted.snapshots / ("x" * 255)).exists()
