"""stat, statfs, ls, df: what they say about lvols."""

import os
import time

from tests.mount.conftest import MIB, Mounted, pattern, run


def test_st_blocks_are_owned_clusters(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 10 * MIB)
    with file.open("r+b", buffering=0) as raw:
        os.pwrite(raw.fileno(), b"x", 3 * MIB)
        os.pwrite(raw.fileno(), b"x", 7 * MIB)
    assert file.stat().st_blocks * 512 == 2 * MIB
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    assert file.stat().st_blocks == 0
    assert (mounted.snapshots / "s").stat().st_blocks * 512 == 2 * MIB
    assert run("du", "-B1M", mounted.snapshots / "s").split()[0] == "2"


def test_modes_and_owners(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    for path, mode in (
        (mounted.path, 0o40700),
        (mounted.volumes, 0o40700),
        (file, 0o100600),
        (mounted.snapshots / "s", 0o100400),
        (mounted.status / "store.json", 0o100400),
    ):
        status = path.stat()
        assert (status.st_mode, status.st_uid, status.st_gid) == (mode, os.getuid(), os.getgid())
    assert not os.access(mounted.snapshots / "s", os.W_OK)
    assert os.access(file, os.W_OK)


def test_st_blksize_is_the_cluster_size(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    assert file.stat().st_blksize == MIB


def test_inode_numbers_stay(mounted: Mounted) -> None:
    for name in ("a", "b"):
        (mounted.volumes / name).touch()
    before = {p.name: p.stat().st_ino for p in mounted.volumes.iterdir()}
    mounted.restart()
    assert {p.name: p.stat().st_ino for p in mounted.volumes.iterdir()} == before
    assert len(set(before.values())) == 2


def test_modification_time_follows_writes(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    os.utime(file, ns=(0, 123_000_000_000))
    assert file.stat().st_mtime_ns == 123_000_000_000
    before = time.time_ns()
    with file.open("r+b", buffering=0) as raw:
        raw.write(b"x")
    assert before - 10**9 < file.stat().st_mtime_ns <= time.time_ns()


def test_statfs_counts_clusters(mounted: Mounted) -> None:
    before = os.statvfs(mounted.path)
    assert before.f_frsize == before.f_bsize == MIB
    assert 240 < before.f_blocks < 256
    assert before.f_bfree == before.f_bavail == before.f_blocks
    (mounted.volumes / "v").write_bytes(pattern(5 * MIB))
    after = os.statvfs(mounted.volumes / "v")
    assert after.f_bfree == before.f_bfree - 5
    assert run("df", "-B1M", "--output=used", mounted.path).split()[-1] == "5"


def test_source_and_type_of_the_mount(mounted: Mounted) -> None:
    assert run("findmnt", "-no", "SOURCE,FSTYPE", mounted.path).split() == [
        str(mounted.store_path),
        "fuse.lvolfs",
    ]


def test_many_lvols_are_listed(mounted: Mounted) -> None:
    names = {f"volume-with-a-longer-name-{number:03}" for number in range(150)}
    for name in names:
        (mounted.volumes / name).touch()
    assert {p.name for p in mounted.volumes.iterdir()} == names
    assert set(run("ls", "-l", mounted.volumes).split()) >= names
