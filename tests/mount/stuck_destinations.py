"""What goes on, in a daemon whose copy or rebuild has a destination that does not answer."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lvolfs.lvstore.store import Lvstore
from tests.mount.conftest import Mounted, pattern

# Far more than anything here needs on a busy machine, and far less than for ever.
PATIENCE = 60
CLUSTERS = 32


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


def text(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.lvolfs.{name}").decode()


def work_in_the_foreground(mounted: Mounted) -> None:
    """Data, and every kind of change of other lvols; returns only if all of it goes on."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(mounted)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the foreground stands still"
    if failures:
        raise failures[0]


def work(mounted: Mounted) -> None:
    other = mounted.volumes / "other"
    with other.open("r+b", buffering=0) as file:
        for number in range(100):
            os.pwrite(file.fileno(), pattern(4096, number), number * 4096)
            assert os.pread(file.fileno(), 4096, number * 4096) == pattern(4096, number)
            if number % 10 == 0:
                os.fsync(file.fileno())
    os.setxattr(other, "user.lvolfs.snapshot", b"aside")
    os.setxattr(mounted.snapshots / "aside", "user.lvolfs.checksum.register", b"")
    os.setxattr(mounted.snapshots / "s", "user.lvolfs.clone", b"beside")
    (mounted.volumes / "beside").unlink()
    wait_until(
        lambda: text(mounted.snapshots / "aside", "checksum.state") == "complete", "it is hashed"
    )
    (mounted.snapshots / "aside").unlink()
    (mounted.volumes / "new").touch()
    (mounted.volumes / "new").unlink()
    assert len(list(mounted.volumes.iterdir())) >= 2
    assert (mounted.status / "jobs.json").read_bytes()


def is_free(store_path: Path) -> bool:
    """No daemon holds it any more."""
    try:
        Lvstore.open(str(store_path), read_only=True).close()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
