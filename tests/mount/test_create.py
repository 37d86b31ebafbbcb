"""Making volumes by making files."""

import errno
import os
from pathlib import Path

import pytest

from tests.mount.conftest import MIB, Mounted, fails, run


def test_touch_makes_an_empty_volume(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    assert file.stat().st_size == 0
    mounted.restart()
    assert [p.name for p in mounted.volumes.iterdir()] == ["v"]


def test_create_and_truncate_make_a_thin_volume(mounted: Mounted) -> None:
    run("truncate", "-s", "10G", mounted.volumes / "big")
    status = (mounted.volumes / "big").stat()
    assert (status.st_size, status.st_blocks) == (10 << 30, 0)
    assert status.st_mode & 0o7777 == 0o600
    assert status.st_uid == os.getuid()


def test_exclusive_creation(mounted: Mounted) -> None:
    (mounted.volumes / "v").touch()
    with pytest.raises(FileExistsError):
        (mounted.volumes / "v").touch(exist_ok=False)


@pytest.mark.parametrize("where", ["", "snapshots", ".lvolfs", ".lvolfs/checksums"])
def test_files_are_made_in_volumes_only(mounted: Mounted, where: str) -> None:
    with pytest.raises(PermissionError):
        (mounted.path / where / "v").touch()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"\xff\xfe", errno.EINVAL),
    ],
)
def test_names_that_cannot_be(mounted: Mounted, name: bytes, code: int) -> None:
    with fails(code):
        os.open(os.fsencode(mounted.volumes) + b"/" + name, os.O_CREAT | os.O_RDWR)
    assert list(mounted.volumes.iterdir()) == []


def test_a_snapshot_and_a_volume_share_one_name_space(mounted: Mounted) -> None:
    (mounted.volumes / "v").touch()
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    with pytest.raises(FileExistsError):
        (mounted.volumes / "s").touch()


@pytest.mark.parametrize(
    "act",
    [
        lambda d: (d / "x").mkdir(),
        lambda d: (d / "x").symlink_to("v"),
        lambda d: (d / "x").hardlink_to(d / "v"),
        lambda d: os.mkfifo(d / "x"),
        Path.rmdir,
        lambda d: (d / "v").chmod(0o644),
        lambda d: os.chown(d / "v", 1, 1),
    ],
    ids=["mkdir", "symlink", "link", "mkfifo", "rmdir", "chmod", "chown"],
)
def test_what_a_store_has_no_place_for(mounted: Mounted, act) -> None:  # type: ignore[no-untyped-def]
    (mounted.volumes / "v").touch()
    with pytest.raises(PermissionError):
        act(mounted.volumes)
    assert [p.name for p in mounted.volumes.iterdir()] == ["v"]


def test_open_truncating(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(b"x" * 3 * MIB)
    file.write_bytes(b"")
    assert file.stat().st_size == 0
    file.write_bytes(b"new")
    assert file.read_bytes() == b"new".ljust(MIB, b"\0")
