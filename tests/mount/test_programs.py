"""Programs that everybody has, on volume files."""

import json
import os

from tests.mount.conftest import MIB, Mounted, pattern, run


def test_cp_sparse_always(mounted: Mounted) -> None:
    source = mounted.directory / "source"
    with source.open("wb") as file:
        file.write(pattern(3 * MIB))
        file.seek(20 * MIB)
        file.write(pattern(MIB, 2))
    run("cp", "--sparse=always", source, mounted.volumes / "v")
    run("cmp", source, mounted.volumes / "v")
    assert (mounted.volumes / "v").stat().st_blocks == 4 * 2048
    run("cp", "--sparse=always", mounted.volumes / "v", mounted.volumes / "w")
    run("cmp", mounted.volumes / "v", mounted.volumes / "w")
    assert (mounted.volumes / "w").stat().st_blocks == 4 * 2048


def test_cp_of_zeros_makes_no_clusters(mounted: Mounted) -> None:
    (mounted.directory / "zeros").write_bytes(bytes(8 * MIB))
    run("cp", "--sparse=always", mounted.directory / "zeros", mounted.volumes / "v")
    status = (mounted.volumes / "v").stat()
    assert (status.st_size, status.st_blocks) == (8 * MIB, 0)


def test_dd(mounted: Mounted) -> None:
    (mounted.directory / "source").write_bytes(pattern(5 * MIB))
    source, file = mounted.directory / "source", mounted.volumes / "v"
    run("dd", f"if={source}", f"of={file}", "bs=64k", "conv=fsync", "status=none")
    run("cmp", source, file)
    run(
        "dd", f"if={source}", f"of={file}", "bs=4k", "count=3", "seek=100",
        "oflag=direct", "conv=notrunc,fdatasync", "status=none",
    )  # fmt: skip
    expected = bytearray(pattern(5 * MIB))
    expected[409600 : 409600 + 12288] = expected[:12288]
    assert file.read_bytes() == expected
    back = mounted.directory / "back"
    run("dd", f"if={file}", f"of={back}", "bs=1M", "iflag=direct", "status=none")
    assert back.read_bytes() == expected


def test_stat_and_ls(mounted: Mounted) -> None:
    (mounted.volumes / "v").write_bytes(pattern(2 * MIB))
    assert run("stat", "-c", "%s %b %B %o %F", mounted.volumes / "v").split() == [
        "2097152", "4096", "512", "1048576", "regular", "file",
    ]  # fmt: skip
    assert run("ls", "-s", "--block-size=1M", mounted.volumes).split()[-2:] == ["2", "v"]


def test_filefrag_fails_cleanly(mounted: Mounted) -> None:
    (mounted.volumes / "v").write_bytes(pattern(MIB))
    text = run("filefrag", "-e", mounted.volumes / "v", check=False)
    assert "0 extents found" in text or "not supported" in text.lower(), text
    assert (mounted.volumes / "v").read_bytes() == pattern(MIB)


def test_rsync_like_replacement(mounted: Mounted) -> None:
    """Write a temporary file beside, then rename it over."""
    target = mounted.volumes / "v"
    target.write_bytes(pattern(2 * MIB))
    temporary = mounted.volumes / ".v.tmp"
    temporary.write_bytes(pattern(2 * MIB, 2))
    temporary.rename(target)
    assert target.read_bytes() == pattern(2 * MIB, 2)


def test_mkfs_and_fsck_ext4_on_a_volume_file(mounted: Mounted) -> None:
    tree = mounted.directory / "tree"
    tree.mkdir()
    for number in range(50):
        (tree / f"file{number}").write_bytes(pattern(number * 1000, number))
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 64 * MIB)
    run("mkfs.ext4", "-q", "-F", "-d", tree, file)
    run("fsck.ext4", "-fn", file)
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    mounted.restart()
    run("fsck.ext4", "-fn", file)
    run("fsck.ext4", "-fn", mounted.snapshots / "s")
    copied = mounted.directory / "file49"
    run("debugfs", "-R", f"dump /file49 {copied}", file)
    assert copied.read_bytes() == pattern(49000, 49)


def test_qemu_img(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(4 * MIB))
    os.truncate(file, 16 * MIB)
    info = json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", file))
    assert info["virtual-size"] == 16 * MIB
    assert info["actual-size"] == 4 * MIB
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", file, mounted.snapshots / "s")
    extents = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", file))
    assert [(e["start"], e["length"]) for e in extents if e["data"]] == [(0, 4 * MIB)]
    (mounted.volumes / "w").touch()
    os.truncate(mounted.volumes / "w", 16 * MIB)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, mounted.volumes / "w")
    run("cmp", file, mounted.volumes / "w")
    with file.open("r+b", buffering=0) as raw:
        os.pwrite(raw.fileno(), b"x", 5 * MIB)
    text = run(
        "qemu-img", "compare", "-f", "raw", "-F", "raw", file, mounted.snapshots / "s", check=False
    )
    assert "mismatch" in text
    run("qemu-img", "create", "-q", "-f", "qcow2", mounted.volumes / "q", "100M")
    run("qemu-img", "check", "-q", "-f", "qcow2", mounted.volumes / "q")
