"""A rebuild's destination that hangs holds up the rebuild and nothing else; the one that is begun
again finishes, and what it has made is equal."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.command_line import LVOLFS
from tests.mount.conftest import MIB, Mounted, fails, pattern, run
from tests.mount.rebuild_command import ended, start_rebuild
from tests.mount.stuck_destinations import (
    CLUSTERS,
    PATIENCE,
    is_free,
    wait_until,
    work_in_the_foreground,
)
from tests.stress.fresh_daemon import start_afresh


@pytest.fixture
def source(make_mounted: Callable[..., Mounted]) -> Mounted:
    """`v` with the snapshot `s` of 32 clusters, and `other`, which nobody rebuilds."""
    mounted = make_mounted(start=False)
    start_afresh(mounted)
    (mounted.volumes / "v").write_bytes(pattern(CLUSTERS * MIB))
    (mounted.volumes / "other").write_bytes(pattern(MIB))
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    return mounted


def jobs(source: Mounted) -> list[dict[str, object]]:
    found = json.loads(run(LVOLFS, "jobs", source.path, "--json", timeout=PATIENCE))
    return [job for job in found if job["kind"] == "rebuild"]


def begin(source: Mounted, destination: Path) -> "subprocess.Popen[str]":
    """Slow enough for it to be stopped in the middle; some clusters are there when it returns."""
    process = start_rebuild(f"{source.path}:v", f"{destination}:v", "--rate", "4M")
    wait_until(lambda: any(job["done_clusters"] for job in jobs(source)), "a cluster is copied")
    return process


@contextlib.contextmanager
def stopped(mounted: Mounted) -> Iterator[None]:
    assert mounted.pid is not None
    pid = mounted.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def cancel(source: Mounted) -> None:
    (job,) = (job for job in jobs(source) if job["state"] == "in progress")
    run(LVOLFS, "jobs", "cancel", source.path, str(job["id"]), timeout=PATIENCE)


def rebuilt_and_equal(source: Mounted, destination: Path) -> None:
    run(LVOLFS, "rebuild", f"{source.path}:v", f"{destination}:v", timeout=PATIENCE)
    names = {path.name for path in source.volumes.iterdir()}
    assert names == {"v", "other"}, "something is left over"
    assert {path.name for path in source.snapshots.iterdir()} == {"s"}


def test_a_daemon_that_hangs(make_mounted: Callable[..., Mounted], source: Mounted) -> None:
    there = make_mounted(start=False)
    start_afresh(there)
    process = begin(source, there.path)
    with stopped(there):
        work_in_the_foreground(source)
        assert [job["state"] for job in jobs(source)] == ["in progress"]
        assert process.poll() is None
        with fails(errno.EBUSY):
            (source.snapshots / "s").unlink()
        cancel(source)
        work_in_the_foreground(source)
    status, errors = ended(process)
    assert status == 1
    assert "cancel" in errors
    assert "Traceback" not in errors
    rebuilt_and_equal(source, there.path)
    assert (there.volumes / "v").read_bytes() == (source.volumes / "v").read_bytes()
    assert (there.snapshots / "s").read_bytes() == (source.snapshots / "s").read_bytes()
    for mounted in (source, there):
        mounted.unmount()
        assert check_store(str(mounted.store_path)) == []


def test_a_daemon_that_goes_on(make_mounted: Callable[..., Mounted], source: Mounted) -> None:
    """Nothing is lost by waiting."""
    there = make_mounted(start=False)
    start_afresh(there)
    process = begin(source, there.path)
    with stopped(there):
        work_in_the_foreground(source)
    status, errors = ended(process)
    assert status == 0, errors
    rebuilt_and_equal(source, there.path)
    assert (there.volumes / "v").read_bytes() == (source.volumes / "v").read_bytes()


def test_a_store_on_a_file_system_that_hangs(
    make_mounted: Callable[..., Mounted], source: Mounted, tmp_path: Path
) -> None:
    """The store is a file of another mount, whose daemon is stopped: the job is stuck in the
    kernel, where nothing gets it out, and all else goes on."""
    below = make_mounted(start=False)
    start_afresh(below)
    file = below.volumes / "replica"
    file.touch()
    os.truncate(file, 128 * MIB)
    Lvstore.create(str(file), size=128 * MIB, cluster_size=MIB).close()
    process = begin(source, file)
    with stopped(below):
        work_in_the_foreground(source)
        cancel(source)
        work_in_the_foreground(source)
    status, errors = ended(process)
    assert status == 1
    assert "cancel" in errors, errors
    wait_until(lambda: is_free(file), "the replica is closed")
    rebuilt_and_equal(source, file)
    copy = tmp_path / "copy"
    shutil.copyfile(file, copy)
    assert check_store(str(copy)) == []
    with Lvstore.open(str(copy), read_only=True) as replica:
        assert replica.get("v").pread(CLUSTERS * MIB, 0) == (source.volumes / "v").read_bytes()
