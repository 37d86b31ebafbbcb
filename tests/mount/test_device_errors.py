"""A device that fails under a mount: callers get EIO, nothing hangs, what was durable stays."""

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import mountpoint
from tests.mount import daemon
from tests.mount.conftest import MIB, Mounted, fails, pattern

SIZE = 4 * MIB


class FailingDevice:
    """Plants faults in the device of a daemon that was forked while this was there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here, self._there = socket.socketpair()
        self.here.settimeout(20)
        monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
        outer = self

        class Opening:
            @staticmethod
            def open(path: str, *, read_only: bool) -> Lvstore:
                store = Lvstore.open(path, read_only=read_only)
                threading.Thread(target=outer._serve, args=(store,), daemon=True).start()
                return store

        monkeypatch.setattr(daemon, "Lvstore", Opening)

    def _serve(self, store: Lvstore) -> None:
        self.here.close()
        while request := self._there.recv(4096):
            device = store.engine.device
            words = json.loads(request)
            if words is None:
                device.clear_faults()
            else:
                device.plant_fault(*words[0], **words[1])
            self._there.send(str(device.injected_faults).encode())

    def _ask(self, words: object) -> int:
        self.here.send(json.dumps(words).encode())
        return int(self.here.recv(64))

    def fail(self, operation: str, **where: int) -> None:
        self._ask([[operation, errno.EIO], where])

    def works_again(self) -> int:
        """How many requests failed until now."""
        return self._ask(None)

    def close(self) -> None:
        self.here.close()
        self._there.close()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDevice]:
    made = FailingDevice(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def mounted(device: FailingDevice, make_mounted: Callable[..., Mounted]) -> Mounted:
    mounted = make_mounted(start=False)
    mounted.start()
    for name, seed in (("a", 1), ("b", 2)):
        path = mounted.volumes / name
        path.touch()
        os.truncate(path, SIZE)
        write_through(path, pattern(SIZE, seed))
    return mounted


def write_through(path: Path, data: bytes, offset: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        assert os.pwrite(fd, data, offset) == len(data)
        os.fsync(fd)
    finally:
        os.close(fd)


def test_read_errors_reach_the_reader_and_pass(mounted: Mounted, device: FailingDevice) -> None:
    device.fail("read")
    with (mounted.volumes / "a").open("rb", buffering=0) as file:
        with fails(errno.EIO):
            file.read(4096)
        assert json.loads((mounted.status / "store.json").read_text())
        assert device.works_again() > 0
        file.seek(0)
        assert file.read(4096) == pattern(SIZE, 1)[:4096]
    mounted.unmount()
    mounted.check_store_is_clean()


def test_a_lost_write_fails_every_flush_of_its_volume(
    mounted: Mounted, device: FailingDevice
) -> None:
    fd = os.open(mounted.volumes / "a", os.O_RDWR)
    try:
        device.fail("write")
        with fails(errno.EIO):
            os.pwrite(fd, b"lost" * 1024, 0)
        assert device.works_again() > 0
        os.pwrite(fd, b"late" * 1024, 8192)
        for _ in range(2):
            with fails(errno.EIO):
                os.fsync(fd)
        assert os.pread(fd, 4096, 0) == pattern(SIZE, 1)[:4096]
    finally:
        with fails(errno.EIO):
            os.close(fd)
    write_through(mounted.volumes / "b", b"fine")
    mounted.restart()
    # a reopened store knows of no lost write
    write_through(mounted.volumes / "a", b"again")
    assert (mounted.volumes / "a").read_bytes()[5:4096] == pattern(SIZE, 1)[5:4096]
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []


def test_a_failed_flush_stops_all_writing_and_nothing_else(
    mounted: Mounted, device: FailingDevice
) -> None:
    device.fail("flush", times=1)
    fd = os.open(mounted.volumes / "a", os.O_RDWR)
    try:
        os.pwrite(fd, b"lost" * 1024, 0)
        with fails(errno.EIO):
            os.fsync(fd)
        assert device.works_again() == 1
        with fails(errno.EIO):
            os.fsync(fd)
        with fails(errno.EIO):
            os.pwrite(fd, b"more", 0)
    finally:
        with fails(errno.EIO):
            os.close(fd)
    for change in (
        (mounted.volumes / "new").touch,
        lambda: os.truncate(mounted.volumes / "b", 2 * SIZE),
        lambda: (mounted.volumes / "b").rename(mounted.volumes / "c"),
        lambda: os.setxattr(mounted.volumes / "b", "user.lvolfs.snapshot", b"s"),
        (mounted.volumes / "b").unlink,
    ):
        with fails(errno.EIO):
            change()
    assert (mounted.volumes / "b").read_bytes() == pattern(SIZE, 2)
    assert sorted(path.name for path in mounted.volumes.iterdir()) == ["a", "b"]
    mounted.kill()
    mounted.start()
    assert (mounted.volumes / "b").read_bytes() == pattern(SIZE, 2)
    assert (mounted.volumes / "a").read_bytes()[4096:] == pattern(SIZE, 1)[4096:]
    write_through(mounted.volumes / "a", b"works")
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []


def test_unmounting_a_failed_store_ends_and_says_so(
    mounted: Mounted, device: FailingDevice
) -> None:
    """The daemon ends with an error, without a traceback; the next mount replays the store."""
    device.fail("flush")
    with fails(errno.EIO):
        write_through(mounted.volumes / "a", b"lost")
    mountpoint.detach(str(mounted.path), lazy=False)
    assert mounted.wait() == 1
    assert "Input/output error" in mounted.log_text()
    assert check_store(str(mounted.store_path))[0].severity == "note"
    mounted.log.write_text("")
    with Lvstore.open(str(mounted.store_path)) as store:
        assert store.get("b").pread(SIZE, 0) == pattern(SIZE, 2)
    assert check_store(str(mounted.store_path)) == []
