"""fio with verification: what is written is what is read, at every depth and by every engine."""

import json
import os
from collections.abc import Callable

import pytest

from tests.mount.conftest import MIB, Mounted, both_transports, run

pytestmark = both_transports

JOBS = [
    ("psync", "--direct=0"),
    ("psync", "--direct=1"),
    ("libaio", "--direct=1"),
    ("libaio", "--direct=0"),
    ("io_uring", "--direct=1"),
    ("io_uring", "--direct=0"),
    ("mmap", "--direct=0"),
]


def fio(mounted: Mounted, *arguments: str) -> dict[str, object]:
    """The first job of fio's report; fails the test unless fio found everything right."""
    text = run(
        "fio", "--output-format=json", "--name=job", "--thread",
        f"--filename={mounted.volumes / 'v'}", f"--aux-path={mounted.directory}",
        "--verify_state_save=0", *arguments,
    )  # fmt: skip
    report = json.loads(text[text.index("{") :])
    job = report["jobs"][0]
    assert job["error"] == 0, text
    return dict(job)


@pytest.fixture
def volume(mounted: Mounted) -> Mounted:
    (mounted.volumes / "v").touch()
    os.truncate(mounted.volumes / "v", 64 * MIB)
    return mounted


@pytest.mark.parametrize(("engine", "direct"), JOBS)
def test_verified_random_writes(volume: Mounted, engine: str, direct: str) -> None:
    job = fio(
        volume, f"--ioengine={engine}", direct, "--rw=randwrite", "--bs=4k", "--size=32m",
        "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--end_fsync=1",
    )  # fmt: skip
    assert job["read"]["total_ios"] == 8192  # type: ignore[index]


@pytest.mark.parametrize("sizes", ["512-64k", "1m-4m"])
def test_verified_odd_sizes_with_snapshots_beneath(volume: Mounted, sizes: str) -> None:
    """Copy on write under load: every other cluster belongs to a parent."""
    fio(volume, "--ioengine=psync", "--rw=write", "--bs=1m", "--size=32m")
    os.setxattr(volume.volumes / "v", "user.lvolfs.snapshot", b"s1")
    unit = "512" if sizes.startswith("512") else "64k"
    fio(
        volume, "--ioengine=libaio", "--direct=1", "--rw=randwrite", f"--bsrange={sizes}",
        f"--blockalign={unit}", "--size=48m", "--io_size=40m", "--iodepth=8",
        # Which of two overlapping writes under way comes last is nobody's promise.
        "--serialize_overlap=1", "--verify=crc32c", "--verify_fatal=1",
    )  # fmt: skip


def test_through_the_page_cache(make_mounted: Callable[..., Mounted]) -> None:
    """As on kernels that cannot map files that bypass it."""
    mounted = make_mounted(options="page_cache")
    (mounted.volumes / "v").touch()
    os.truncate(mounted.volumes / "v", 64 * MIB)
    for engine, direct in (("libaio", "1"), ("psync", "0"), ("mmap", "0")):
        fio(
            mounted, f"--ioengine={engine}", f"--direct={direct}", "--rw=randwrite", "--bs=4k",
            "--size=16m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--end_fsync=1",
        )  # fmt: skip


def test_several_synchronous_writers(volume: Mounted) -> None:
    job = fio(
        volume, "--ioengine=psync", "--direct=1", "--rw=randrw", "--bs=4k", "--numjobs=4",
        "--size=8m", "--offset_increment=8m", "--verify=crc32c", "--verify_fatal=1",
        "--group_reporting", "--fsync=64",
    )  # fmt: skip
    assert job["sync"]["total_ios"] > 0  # type: ignore[index]


def test_trims(volume: Mounted) -> None:
    """Punching and writing in between, by a program that knows what must be left."""
    fio(
        volume, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=64k", "--size=32m",
        "--iodepth=8", "--verify=crc32c", "--verify_fatal=1", "--trim_percentage=20",
        "--trim_verify_zero=1",
    )  # fmt: skip
