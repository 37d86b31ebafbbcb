"""A destination that is slow, hangs or is gone holds up its own copy and nothing else."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MIB, Mounted, fails, pattern
from tests.mount.stuck_destinations import (
    CLUSTERS,
    PATIENCE,
    is_free,
    text,
    wait_until,
    work_in_the_foreground,
)
from tests.nbd_server import NbdServer, nbd_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NbdServer]:
    """An NBD server in memory that takes its time over every write."""
    slow = ("--filter=delay", "memory", str(CLUSTERS * MIB), "delay-write=100ms")
    with nbd_server(tmp_path / "nbd.sock", *slow) as started:
        yield started


def stop(server: NbdServer) -> None:
    """It hangs from now on."""
    server.process.send_signal(signal.SIGSTOP)


@pytest.fixture
def source(mounted: Mounted) -> Path:
    """A snapshot that owns 32 clusters, of `v`; `other` is a volume that nobody copies."""
    (mounted.volumes / "v").write_bytes(pattern(CLUSTERS * MIB))
    (mounted.volumes / "other").write_bytes(pattern(MIB))
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    return mounted.snapshots / "s"


def start_copy(source: Path, destination: str) -> None:
    os.setxattr(source, "user.lvolfs.copy.start", destination.encode())
    wait_until(lambda: not text(source, "copy.progress").startswith("0/"), "a cluster is copied")


def test_a_server_that_hangs(mounted: Mounted, source: Path, server: NbdServer) -> None:
    start_copy(source, server.uri)
    stop(server)
    work_in_the_foreground(mounted)
    assert text(source, "copy.state") == "in progress"
    with fails(errno.EBUSY):
        source.unlink()
    os.setxattr(source, "user.lvolfs.copy.cancel", b"")
    wait_until(lambda: text(source, "copy.state") == "cancelled", "the copy is cancelled")
    source.unlink()


def test_a_server_that_does_not_even_greet(
    mounted: Mounted, source: Path, server: NbdServer
) -> None:
    stop(server)
    begun = time.monotonic()
    starting = threading.Thread(target=lambda: refused(source, server.uri, errno.ETIMEDOUT))
    starting.start()
    work_in_the_foreground(mounted)
    starting.join(PATIENCE)
    assert not starting.is_alive()
    assert time.monotonic() - begun < PATIENCE
    assert "has not answered for 10 s" in mounted.log_text()


def refused(source: Path, destination: str, code: int) -> None:
    with fails(code):
        os.setxattr(source, "user.lvolfs.copy.start", destination.encode())


def test_a_server_that_dies(mounted: Mounted, source: Path, server: NbdServer) -> None:
    start_copy(source, server.uri)
    server.process.kill()
    wait_until(lambda: text(source, "copy.state") == "error", "the copy fails")
    assert f"of {server.uri}" in text(source, "copy.error")
    work_in_the_foreground(mounted)
    source.unlink()


def test_unmounting_while_a_server_hangs(mounted: Mounted, source: Path, server: NbdServer) -> None:
    start_copy(source, server.uri)
    stop(server)
    mounted.unmount()
    mounted.check_store_is_clean()


def test_a_file_system_that_hangs(
    make_mounted: Callable[..., Mounted], mounted: Mounted, source: Path
) -> None:
    """The destination is a file of another mount, whose daemon is stopped. Nothing gets the copy
    out of the kernel, not even the end of its process, but the store is closed all the same."""
    there = make_mounted()
    assert there.pid is not None
    destination = there.volumes / "destination"
    destination.touch()
    os.truncate(destination, CLUSTERS * MIB)
    with stopped_in_the_middle(there.pid, source, destination):
        work_in_the_foreground(mounted)
        os.setxattr(source, "user.lvolfs.copy.cancel", b"")
        work_in_the_foreground(mounted)
        assert mounted.pid is not None
        os.kill(mounted.pid, signal.SIGTERM)
        wait_until(lambda: "is left behind" in mounted.log_text(), "the copy is given up")
        wait_until(lambda: is_free(mounted.store_path), "the store is closed")
        mounted.check_store_is_clean()
        assert not mounted.path.is_mount()
    assert mounted.wait(PATIENCE) == 0


@contextlib.contextmanager
def stopped_in_the_middle(pid: int, source: Path, destination: Path) -> Iterator[None]:
    """Stops the daemon `pid` while a copy to a file of its mount is under way."""
    try:
        while True:
            os.setxattr(source, "user.lvolfs.copy.start", str(destination).encode())
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.2)
            if text(source, "copy.state") == "in progress":
                break
            os.kill(pid, signal.SIGCONT)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
