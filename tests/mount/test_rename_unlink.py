"""mv and rm."""

import errno
import os

import pytest

from tests.mount.conftest import MIB, Mounted, fails, pattern, run


def test_mv_renames(mounted: Mounted) -> None:
    (mounted.volumes / "a").write_bytes(pattern(MIB))
    run("mv", mounted.volumes / "a", mounted.volumes / "b")
    assert [p.name for p in mounted.volumes.iterdir()] == ["b"]
    mounted.restart()
    assert (mounted.volumes / "b").read_bytes() == pattern(MIB)


def test_mv_renames_an_open_volume_and_a_snapshot(mounted: Mounted) -> None:
    file = mounted.volumes / "a"
    file.write_bytes(pattern(MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    with file.open("r+b", buffering=0) as raw:
        file.rename(mounted.volumes / "b")
        os.pwrite(raw.fileno(), b"x", 0)
    (mounted.snapshots / "s").rename(mounted.snapshots / "t")
    assert os.getxattr(mounted.volumes / "b", "user.lvolfs.parent") == b"t"
    assert (mounted.volumes / "b").read_bytes()[:1] == b"x"


def test_mv_replaces_a_volume_but_no_snapshot(mounted: Mounted) -> None:
    for name in ("a", "b"):
        (mounted.volumes / name).write_bytes(name.encode() * 10)
        os.setxattr(mounted.volumes / name, "user.lvolfs.snapshot", f"s{name}".encode())
    (mounted.volumes / "a").rename(mounted.volumes / "b")
    assert (mounted.volumes / "b").read_bytes()[:10] == b"a" * 10
    assert [p.name for p in mounted.volumes.iterdir()] == ["b"]
    with pytest.raises(FileExistsError):
        (mounted.snapshots / "sa").rename(mounted.snapshots / "sb")


def test_mv_between_directories(mounted: Mounted) -> None:
    (mounted.volumes / "a").touch()
    with pytest.raises(PermissionError):
        (mounted.volumes / "a").rename(mounted.snapshots / "a")
    with pytest.raises(PermissionError):
        (mounted.status / "store.json").rename(mounted.volumes / "store.json")


def test_a_name_that_is_taken_or_cannot_be(mounted: Mounted) -> None:
    (mounted.volumes / "a").touch()
    os.setxattr(mounted.volumes / "a", "user.lvolfs.snapshot", b"s")
    with pytest.raises(FileExistsError):
        (mounted.volumes / "a").rename(mounted.volumes / "s")
    with pytest.raises(OSError, match="too long"):
        (mounted.volumes / "a").rename(mounted.volumes / ("x" * 256))
    assert (mounted.volumes / "a").exists()


def test_rm_deletes_and_frees(mounted: Mounted) -> None:
    file = mounted.volumes / "a"
    free = os.statvfs(mounted.path).f_bfree
    file.write_bytes(pattern(8 * MIB))
    assert os.statvfs(mounted.path).f_bfree == free - 8
    run("rm", file)
    assert os.statvfs(mounted.path).f_bfree == free
    with pytest.raises(FileNotFoundError):
        file.stat()


def test_rm_of_what_is_open(mounted: Mounted) -> None:
    file = mounted.volumes / "a"
    with file.open("w+b"), fails(errno.EBUSY):
        file.unlink()
    file.unlink()


def test_rm_right_after_close(mounted: Mounted) -> None:
    file = mounted.volumes / "a"
    for _ in range(50):
        file.write_bytes(b"x")
        file.unlink()


def test_rm_of_snapshots(mounted: Mounted) -> None:
    file = mounted.volumes / "a"
    file.write_bytes(pattern(2 * MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    snapshot = mounted.snapshots / "s"
    os.setxattr(snapshot, "user.lvolfs.clone", b"c")
    with fails(errno.EBUSY):
        snapshot.unlink()
    (mounted.volumes / "c").unlink()
    snapshot.unlink()  # merges into its one clone
    assert list(mounted.snapshots.iterdir()) == []
    assert file.read_bytes() == pattern(2 * MIB)
    assert os.getxattr(file, "user.lvolfs.num_allocated_clusters") == b"2"


def test_rm_of_what_is_not_there(mounted: Mounted) -> None:
    with pytest.raises(FileNotFoundError):
        (mounted.volumes / "a").unlink()
    for name in ("store.json", "metrics"):
        with pytest.raises(PermissionError):
            (mounted.status / name).unlink()


def test_an_inode_number_used_again_is_another_file(mounted: Mounted) -> None:
    file = mounted.volumes / "a"
    file.write_bytes(b"old")
    inode = file.stat().st_ino
    file.unlink()
    (mounted.volumes / "b").touch()
    assert (mounted.volumes / "b").stat().st_ino == inode, "the case that this is about"
    assert (mounted.volumes / "b").read_bytes() == b""
