"""A daemon that may open hardly any files: clear errors while there are none, and all is well
once there are some again."""

import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.rpc import registry
from lvolfs.rpc.client import Client
from tests.mount.conftest import MIB, Mounted, fails, pattern
from tests.stress.fresh_daemon import start_afresh

# So many more than an idle daemon has.
SPARE = 9


@pytest.fixture
def poor(make_mounted: Callable[..., Mounted]) -> Mounted:
    mounted = make_mounted(start=False)
    start_afresh(mounted)
    assert mounted.pid is not None
    most = held(mounted) + SPARE
    resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE, (most, most))
    return mounted


def held(mounted: Mounted) -> int:
    return len(list(Path("/proc", str(mounted.pid), "fd").iterdir()))


def test_it_runs_out_and_recovers(poor: Mounted) -> None:
    volume = poor.volumes / "v"
    volume.write_bytes(pattern(MIB))
    os.setxattr(volume, "user.lvolfs.snapshot", b"s")
    destination = poor.directory / "destination"
    destination.write_bytes(bytes(MIB))
    mine = registry.find_by_store(str(poor.store_path))
    assert mine is not None
    before = held(poor)
    with contextlib.ExitStack() as clients:
        for _ in range(8 * SPARE):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(mine.socket)
        deadline = time.monotonic() + 30
        while held(poor) < before + SPARE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # Nothing of a mount's own needs one: data, changes, listings, however many files.
        opened = [os.open(volume, os.O_RDWR) for _ in range(16 * SPARE)]
        for number, fd in enumerate(opened):
            assert os.pwrite(fd, b"x", number) == 1
            os.close(fd)
        os.setxattr(volume, "user.lvolfs.snapshot", b"t")
        assert {path.name for path in poor.snapshots.iterdir()} == {"s", "t"}
        with fails(errno.EMFILE):
            os.setxattr(poor.snapshots / "s", "user.lvolfs.copy.start", str(destination).encode())
        assert os.getxattr(poor.snapshots / "s", "user.lvolfs.num_clusters") == b"1"
    assert "Too many open files" in poor.log_text()
    assert poor.log_text().count("accept returned EMFILE") < 10
    with Client(mine.socket, timeout=60) as again:
        assert len(again.call("bdev_lvol_get_lvols")) == 3
    deadline = time.monotonic() + 30
    while held(poor) > before:
        assert time.monotonic() < deadline, f"{before} became {held(poor)}"
        time.sleep(0.05)
    os.setxattr(poor.snapshots / "s", "user.lvolfs.copy.start", str(destination).encode())
    while os.getxattr(poor.snapshots / "s", "user.lvolfs.copy.state") == b"in progress":
        time.sleep(0.02)
    assert destination.read_bytes() == pattern(MIB)
    poor.unmount()
    poor.check_store_is_clean()
