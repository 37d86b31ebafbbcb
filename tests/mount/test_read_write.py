"""Data through the lane: any offset and length, O_DIRECT, vectors, many threads."""

import mmap
import os
import threading
from pathlib import Path

import pytest

from tests.mount.conftest import MIB, Mounted, pattern


def test_any_offset_and_length(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    expected = bytearray(4 * MIB)
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR)
    os.truncate(descriptor, 4 * MIB)
    for number, (offset, length) in enumerate(
        [(0, 1), (511, 2), (4095, 4098), (MIB - 7, 13), (MIB, MIB), (3 * MIB + 1, MIB - 1)]
    ):
        data = pattern(length, number)
        assert os.pwrite(descriptor, data, offset) == length
        expected[offset : offset + length] = data
    os.close(descriptor)
    assert file.read_bytes() == expected
    mounted.restart()
    assert file.read_bytes() == expected


def test_requests_of_more_than_the_lane_takes_at_once(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    data = pattern(11 * MIB)
    with file.open("wb", buffering=0) as raw:
        assert raw.write(data) == len(data)
    with file.open("rb", buffering=0) as raw:
        assert raw.read(12 * MIB) == data


def test_reading_past_the_end(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    with file.open("rb") as raw:
        assert os.pread(raw.fileno(), 100, MIB) == b""
        assert os.pread(raw.fileno(), 100, MIB - 10) == pattern(MIB)[-10:]
        assert os.pread(raw.fileno(), 100, 1 << 60) == b""


def test_a_write_past_the_end_grows_to_whole_clusters(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    with file.open("r+b", buffering=0) as raw:
        assert os.pwrite(raw.fileno(), b"here", 5 * MIB + 10) == 4
        assert os.fstat(raw.fileno()).st_size == 6 * MIB
    content = file.read_bytes()
    assert content == bytes(5 * MIB + 10) + b"here" + bytes(MIB - 14)
    assert file.stat().st_blocks == 2048


def test_appending(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    for number in range(3):
        with file.open("ab") as end:
            end.write(bytes([number + 1]) * 10)
    content = file.read_bytes()
    assert len(content) == 3 * MIB
    assert [content[i * MIB : i * MIB + 11] for i in range(3)] == [
        bytes([i + 1]) * 10 + b"\0" for i in range(3)
    ]


def test_o_direct(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    aligned = mmap.mmap(-1, 2 * MIB)
    aligned.write(pattern(2 * MIB))
    assert os.pwritev(descriptor, [aligned], 4096) == 2 * MIB
    back = mmap.mmap(-1, 2 * MIB)
    assert os.preadv(descriptor, [back], 4096) == 2 * MIB
    assert back[:] == aligned[:]
    os.close(descriptor)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
def test_a_synchronous_write_survives_a_crash(mounted: Mounted, flag: int) -> None:
    file = mounted.volumes / "v"
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | flag)
    os.write(descriptor, pattern(5000))
    os.close(descriptor)
    mounted.kill()
    mounted.start()
    assert file.read_bytes()[:5000] == pattern(5000)


def test_snapshots_cannot_be_written(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    snapshot = mounted.snapshots / "s"
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(snapshot, flags)
    with pytest.raises(OSError, match="Read-only file system"):
        os.truncate(snapshot, 0)
    file.write_bytes(pattern(MIB, 2))
    assert snapshot.read_bytes() == pattern(MIB)
    assert file.read_bytes() == pattern(MIB, 2)


def test_a_read_only_mount(make_mounted) -> None:  # type: ignore[no-untyped-def]
    mounted = make_mounted()
    (mounted.volumes / "v").write_bytes(pattern(MIB))
    mounted.unmount()
    before = mounted.store_path.read_bytes()
    mounted.start("ro")
    assert (mounted.volumes / "v").read_bytes() == pattern(MIB)
    for act in (
        (mounted.volumes / "w").touch,
        (mounted.volumes / "v").unlink,
        lambda: os.open(mounted.volumes / "v", os.O_RDWR),
        lambda: os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s"),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            act()
    mounted.unmount()
    assert mounted.store_path.read_bytes() == before


def _hammer(file: Path, number: int, rounds: int, problems: list[str]) -> None:
    """Each thread owns every eighth block and always knows what is in it."""
    descriptor = os.open(file, os.O_RDWR)
    random = __import__("random").Random(number)
    model: dict[int, bytes] = {}
    for _ in range(rounds):
        block = random.randrange(0, 16 * MIB // 4096 // 8) * 8 + number
        if block in model and random.random() < 0.5:
            if os.pread(descriptor, 4096, block * 4096) != model[block]:
                problems.append(f"thread {number}: block {block} differs")
        else:
            model[block] = random.randbytes(4096)
            os.pwrite(descriptor, model[block], block * 4096)
    for block, data in model.items():
        if os.pread(descriptor, 4096, block * 4096) != data:
            problems.append(f"thread {number}: block {block} differs at the end")
    os.close(descriptor)


def test_many_threads_in_the_same_clusters(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 16 * MIB)
    problems: list[str] = []
    threads = [threading.Thread(target=_hammer, args=(file, n, 600, problems)) for n in range(8)]
    for thread in threads:
        thread.start()
    for number in range(3):
        os.setxattr(file, "user.lvolfs.snapshot", b"s%d" % number)
    for thread in threads:
        thread.join()
    assert problems == []


def test_data_requests_leave_python_alone(mounted: Mounted) -> None:
    """No getxattr (security.capability) and no getattr for each write; counted by the lane."""

    def requests() -> dict[str, float]:
        lines = (mounted.status / "metrics").read_text().splitlines()
        return {
            line.split('"')[1]: float(line.split()[-1])
            for line in lines
            if line.startswith("lvolfs_requests_total{")
        }

    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 8 * MIB)
    descriptor = os.open(file, os.O_RDWR)
    before = requests()
    for number in range(500):
        os.pwrite(descriptor, b"x" * 4096, number * 4096)
        os.pread(descriptor, 4096, number * 4096)
    os.fsync(descriptor)
    after = requests()
    os.close(descriptor)
    assert after["write"] - before.get("write", 0) == 500
    assert after["fsync"] - before.get("fsync", 0) == 1
    for name in ("getattr", "getxattr", "lookup", "open"):
        assert after.get(name, 0) - before.get(name, 0) < 10, name
