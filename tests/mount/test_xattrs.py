"""The virtual xattrs user.lvolfs.*, and those that SPDK keeps."""

import errno
import os
import time
from pathlib import Path

import pytest

from tests.mount.conftest import MIB, Mounted, fails, pattern, run

PREFIX = "user.lvolfs."


def get(path: Path, name: str) -> str:
    return os.getxattr(path, PREFIX + name).decode()


def put(path: Path, name: str, value: str = "") -> None:
    os.setxattr(path, PREFIX + name, value.encode())


def wait_for(path: Path, name: str, value: str) -> None:
    deadline = time.monotonic() + 20
    while (now := get(path, name)) != value:
        assert now == "in progress", f"{name} is {now}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def tree(mounted: Mounted) -> Mounted:
    """Volume v: 6 clusters, of which 0-2 came with snapshot s; cluster 4 is its own."""
    file = mounted.volumes / "v"
    file.write_bytes(pattern(3 * MIB))
    os.truncate(file, 6 * MIB)
    put(file, "snapshot", "s")
    with file.open("r+b", buffering=0) as raw:
        os.pwrite(raw.fileno(), pattern(MIB, 4), 4 * MIB)
    return mounted


def test_what_a_volume_tells(tree: Mounted) -> None:
    file = tree.volumes / "v"
    told = {
        name.removeprefix(PREFIX): os.getxattr(file, name).decode()
        for name in os.listxattr(file)
        if name.startswith(PREFIX)
    }
    assert len(told.pop("uuid")) == 36
    assert told == {
        "type": "volume",
        "cluster_size": "1048576",
        "num_clusters": "6",
        "num_allocated_clusters": "1",
        "thin_provision": "true",
        "parent": "s",
        "children": "",
        "read_only": "false",
    }


def test_what_a_snapshot_tells(tree: Mounted) -> None:
    snapshot = tree.snapshots / "s"
    assert get(snapshot, "type") == "snapshot"
    assert get(snapshot, "read_only") == "true"
    assert get(snapshot, "num_allocated_clusters") == "3"
    put(snapshot, "clone", "c")
    assert get(snapshot, "children") == "c,v"
    assert get(tree.volumes / "c", "parent") == "s"
    assert (tree.volumes / "c").read_bytes() == snapshot.read_bytes()


def test_getfattr_d(tree: Mounted) -> None:
    text = run("getfattr", "-d", tree.volumes / "v", tree.snapshots / "s")
    assert 'user.lvolfs.parent="s"' in text
    assert 'user.lvolfs.type="snapshot"' in text


@pytest.mark.parametrize("algorithm", ["", "xxh3", "crc64"])
def test_checksums(tree: Mounted, algorithm: str) -> None:
    snapshot = tree.snapshots / "s"
    for name in ("checksum", "checksum.algorithm", "checksum.state", "checksum.progress"):
        with fails(errno.ENODATA):
            get(snapshot, name)
        assert PREFIX + name not in os.listxattr(snapshot)
    put(snapshot, "checksum.register", algorithm)
    wait_for(snapshot, "checksum.state", "complete")
    assert get(snapshot, "checksum.algorithm") == (algorithm or "xxh3")
    assert get(snapshot, "checksum.progress") == "3/3"
    checksum = get(snapshot, "checksum")
    assert len(checksum) == 16
    assert int(checksum, 16) != 0
    tree.restart()
    assert get(snapshot, "checksum") == checksum
    assert get(snapshot, "checksum.state") == "complete"


def test_checksums_of_ranges(tree: Mounted) -> None:
    snapshot = tree.snapshots / "s"
    put(snapshot, "checksum.register", "0-1,4 crc64")
    wait_for(snapshot, "checksum.state", "partial")
    assert get(snapshot, "checksum.progress") == "2/3"
    with fails(errno.ENODATA):
        get(snapshot, "checksum")
    put(snapshot, "checksum.register", "2 crc64")
    wait_for(snapshot, "checksum.state", "complete")
    put(tree.snapshots / "s", "clone", "c")
    assert len(get(snapshot, "checksum")) == 16


def test_the_checksum_goes_with_the_data(tree: Mounted) -> None:
    """A parent that is merged into it changes what a snapshot owns."""
    file = tree.volumes / "v"
    put(file, "snapshot", "t")
    put(tree.snapshots / "t", "checksum.register")
    wait_for(tree.snapshots / "t", "checksum.state", "complete")
    (tree.snapshots / "s").unlink()
    with fails(errno.ENODATA):
        get(tree.snapshots / "t", "checksum")


def test_copy_of_all_own_clusters(tree: Mounted) -> None:
    target = tree.volumes / "copy"
    target.write_bytes(pattern(6 * MIB, 9))
    snapshot = tree.snapshots / "s"
    with fails(errno.ENODATA):
        get(snapshot, "copy.state")
    put(snapshot, "copy.start", "copy")
    wait_for(snapshot, "copy.state", "complete")
    assert get(snapshot, "copy.progress") == "3/3"
    assert target.read_bytes() == pattern(3 * MIB) + pattern(6 * MIB, 9)[3 * MIB :]


@pytest.mark.parametrize("kind", ["name", "uuid", "path in this mount", "file", "other mount"])
def test_copy_of_some_clusters(make_mounted, tree: Mounted, kind: str) -> None:  # type: ignore[no-untyped-def]
    """1 is copied; 4, which the snapshot does not own, is unmapped."""
    target = tree.volumes / "copy"
    if kind == "file":
        target = tree.directory / "a file with spaces"
    elif kind == "other mount":
        target = make_mounted().volumes / "copy"
    target.write_bytes(pattern(6 * MIB, 9))
    destination = str(target)
    if kind == "name":
        destination = "copy"
    elif kind == "uuid":
        destination = get(target, "uuid")
    put(tree.snapshots / "s", "copy.start", f"{destination} 1,4")
    wait_for(tree.snapshots / "s", "copy.state", "complete")
    assert get(tree.snapshots / "s", "copy.progress") == "2/2"
    expected = bytearray(pattern(6 * MIB, 9))
    expected[MIB : 2 * MIB] = pattern(3 * MIB)[MIB : 2 * MIB]
    expected[4 * MIB : 5 * MIB] = bytes(MIB)
    assert target.read_bytes() == expected


def test_a_destination_that_is_open_is_refused(tree: Mounted) -> None:
    target = tree.volumes / "copy"
    target.touch()
    os.truncate(target, 6 * MIB)
    with target.open("r+b"), fails(errno.EBUSY):
        put(tree.snapshots / "s", "copy.start", "copy")
    put(tree.snapshots / "s", "copy.start", "copy")
    wait_for(tree.snapshots / "s", "copy.state", "complete")


def test_a_destination_is_free_as_soon_as_it_is_closed(tree: Mounted) -> None:
    target = tree.volumes / "copy"
    for _ in range(30):
        target.write_bytes(pattern(6 * MIB))
        put(tree.snapshots / "s", "copy.start", "copy 0")
        wait_for(tree.snapshots / "s", "copy.state", "complete")


MISTAKES = [
    ("volumes/v", "snapshot", "s", errno.EEXIST),
    ("volumes/v", "snapshot", "", errno.EINVAL),
    ("volumes/v", "snapshot", "a/b", errno.EINVAL),
    ("volumes/v", "snapshot", "x" * 256, errno.ENAMETOOLONG),
    ("volumes/v", "snapshot", "a\0b", errno.EINVAL),
    ("volumes/v", "clone", "c", errno.EINVAL),
    ("volumes/v", "checksum.register", "", errno.EPERM),
    ("volumes/v", "copy.start", "s", errno.EINVAL),
    ("volumes/v", "uuid", "x", errno.EPERM),
    ("volumes/v", "no.such", "x", errno.EINVAL),
    ("snapshots/s", "snapshot", "t", errno.EINVAL),
    ("snapshots/s", "clone", "v", errno.EEXIST),
    ("snapshots/s", "checksum.register", "0-", errno.EINVAL),
    ("snapshots/s", "checksum.register", "3-1", errno.EINVAL),
    ("snapshots/s", "checksum.register", "5,6", errno.ERANGE),
    ("snapshots/s", "checksum.register", "0-9999999999999999999", errno.ERANGE),
    ("snapshots/s", "checksum.register", "md5", errno.EINVAL),
    ("snapshots/s", "checksum.register", "0 1 xxh3", errno.EINVAL),
    ("snapshots/s", "checksum.stop", "", errno.ENODATA),
    ("snapshots/s", "copy.start", "", errno.EINVAL),
    ("snapshots/s", "copy.start", "nowhere", errno.ENOENT),
    ("snapshots/s", "copy.start", "/no/where", errno.ENOENT),
    ("snapshots/s", "copy.start", "v 0-6", errno.ERANGE),
    ("snapshots/s", "copy.start", "s", errno.EINVAL),
    ("snapshots/s", "copy.start", "small", errno.EINVAL),
    ("snapshots/s", "copy.start", "frozen", errno.EROFS),
    ("snapshots/s", "copy.cancel", "", errno.ENODATA),
]


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """One store for all mistakes: none of them changes it."""
    mounted = Mounted(
        tmp_path_factory.mktemp("mistakes"), size=64 * MIB, cluster_size=MIB, options=""
    )
    mounted.start()
    try:
        for name, size in (("v", 6), ("small", 1), ("other", 6)):
            (mounted.volumes / name).touch()
            os.truncate(mounted.volumes / name, size * MIB)
        put(mounted.volumes / "v", "snapshot", "s")
        put(mounted.volumes / "other", "snapshot", "frozen")
        yield mounted
        mounted.unmount()
    finally:
        mounted.clean_up()
    mounted.check_log()


@pytest.mark.parametrize(("where", "name", "value", "code"), MISTAKES)
def test_mistakes(mistaken: Mounted, where: str, name: str, value: str, code: int) -> None:
    before = (mistaken.status / "lvols.json").read_text()
    with fails(code):
        put(mistaken.path / where, name, value)
    assert (mistaken.status / "lvols.json").read_text() == before


def test_values_that_are_not_text(mistaken: Mounted) -> None:
    with fails(errno.EINVAL):
        os.setxattr(mistaken.volumes / "v", PREFIX + "snapshot", b"\xff\xfe")
    put(mistaken.volumes / "small", "snapshot", "with-nul\0")
    assert (mistaken.snapshots / "with-nul").exists()
    (mistaken.snapshots / "with-nul").unlink()


def test_xattrs_of_an_lvol_are_spdks_and_stay(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.setxattr(file, "user.owner", b"me")
    os.setxattr(file, "user.bytes", bytes(range(256)))
    os.removexattr(file, "user.owner")
    with fails(errno.ENODATA):
        os.getxattr(file, "user.owner")
    mounted.restart()
    assert os.getxattr(file, "user.bytes") == bytes(range(256))
    assert [n for n in os.listxattr(file) if not n.startswith(PREFIX)] == ["user.bytes"]


def test_xattrs_that_cannot_be(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    with fails(errno.ENODATA):
        os.getxattr(file, "user.none")
    with fails(errno.ENODATA):
        os.removexattr(file, "user.none")
    with fails(errno.EPERM):
        os.removexattr(file, PREFIX + "uuid")
    with fails(errno.E2BIG):
        os.setxattr(file, "user.big", b"x" * 5000)
    with fails(errno.EPERM):
        os.setxattr(file, "user.uuid", b"x")
    with fails(errno.ENOTSUP):
        os.setxattr(file, "trusted.x", b"x")
    for path in (mounted.path, mounted.volumes, mounted.status / "store.json"):
        assert os.listxattr(path) == []
        with fails(errno.ENODATA):
            get(path, "uuid")
        with fails(errno.ENOTSUP):
            os.setxattr(path, "user.x", b"x")
    os.setxattr(file, PREFIX + "snapshot", b"s")
    with fails(errno.EPERM):
        os.setxattr(mounted.snapshots / "s", "user.x", b"x")
