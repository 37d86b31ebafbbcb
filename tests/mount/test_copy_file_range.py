"""copy_file_range(2) inside one mount: natively, holes stay holes."""

import os

from tests.mount.conftest import MIB, Mounted, pattern, run


def _requests(mounted: Mounted, op: str) -> float:
    text = (mounted.status / "metrics").read_text()
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith(f'lvolfs_requests_total{{op="{op}')
    )


def test_cp_copies_natively_and_grows_the_copy(mounted: Mounted) -> None:
    source = mounted.volumes / "a"
    source.write_bytes(pattern(7 * MIB))
    os.truncate(source, 9 * MIB)
    before = _requests(mounted, "write")
    with source.open("rb") as reader, (mounted.volumes / "b").open("wb") as writer:
        done = 0
        while copied := os.copy_file_range(reader.fileno(), writer.fileno(), 64 * MIB):
            done += copied
    assert done == 9 * MIB
    assert _requests(mounted, "write") == before
    assert _requests(mounted, "copy_file_range") > 0
    copy = mounted.volumes / "b"
    assert copy.read_bytes() == pattern(7 * MIB) + bytes(2 * MIB)
    assert copy.stat().st_blocks == 7 * 2048, "holes were filled"


def test_from_the_middle_of_a_clone_to_odd_places(mounted: Mounted) -> None:
    source = mounted.volumes / "a"
    source.write_bytes(pattern(3 * MIB))
    os.setxattr(source, "user.lvolfs.snapshot", b"s")
    target = mounted.volumes / "b"
    target.write_bytes(pattern(4 * MIB, 2))
    with source.open("rb") as reader, target.open("r+b") as writer:
        assert os.copy_file_range(reader.fileno(), writer.fileno(), 1234567, 777, 333) == 1234567
    expected = bytearray(pattern(4 * MIB, 2))
    expected[333 : 333 + 1234567] = pattern(3 * MIB)[777 : 777 + 1234567]
    assert target.read_bytes() == expected


def test_a_snapshot_is_no_destination(mounted: Mounted) -> None:
    (mounted.volumes / "a").write_bytes(pattern(MIB))
    os.setxattr(mounted.volumes / "a", "user.lvolfs.snapshot", b"s")
    done = run("cp", mounted.volumes / "a", mounted.snapshots / "s", check=False)
    assert "Read-only file system" in done


def test_status_files_are_copied_by_reading(mounted: Mounted) -> None:
    run("cp", mounted.status / "store.json", mounted.directory / "copy.json")
    assert (mounted.directory / "copy.json").read_text().startswith("{")
