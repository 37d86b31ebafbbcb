"""Real mounts. Whatever a test does, its mount is gone afterwards and its daemon ended."""

import contextlib
import errno
import os
import random
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import mountpoint as mounts
from tests.mount.daemon import fork_daemon
from tests.other_users import within_reach

MIB = 1 << 20


ENABLE_URING = Path("/sys/module/fuse/parameters/enable_uring")

# For tests that have to pass however requests come from the kernel.
both_transports = pytest.mark.parametrize("transport", ["dev", "uring"], indirect=True)


@pytest.fixture(scope="session")
def fuse_over_io_uring() -> Iterator[str | None]:
    """Switches it on if need be; what the kernel lacks for it, or None."""
    before = ENABLE_URING.read_text().strip() if ENABLE_URING.exists() else None
    if before is None:
        yield "the kernel has no FUSE over io_uring (CONFIG_FUSE_IO_URING, since 6.14)"
    elif before == "Y":
        yield None
    elif os.access(ENABLE_URING, os.W_OK):
        ENABLE_URING.write_text("Y")
        yield None
        ENABLE_URING.write_text(before)
    else:
        pytest.fail(f"needs root, to write Y to {ENABLE_URING}", pytrace=False)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """The mount option; LVOLFS_TEST_TRANSPORT=uring runs all tests with that."""
    chosen = str(getattr(request, "param", os.environ.get("LVOLFS_TEST_TRANSPORT", "dev")))
    if chosen == "uring":
        missing = request.getfixturevalue("fuse_over_io_uring")
        if missing:
            pytest.skip(missing)
    return chosen


class Mounted:
    """A store on a file, mounted by a daemon of its own that runs as `uid` (0: as we do)."""

    uid = 0

    def __init__(self, directory: Path, *, size: int, cluster_size: int, options: str) -> None:
        self.directory = directory
        self.store_path = directory / "store.img"
        self.path = directory / "mnt"
        self.log = directory / "daemon.log"
        self.path.mkdir()
        self.options = options
        self.pid: int | None = None
        Lvstore.create(str(self.store_path), size=size, cluster_size=cluster_size).close()

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def status(self) -> Path:
        return self.path / ".lvolfs"

    def start(self, options: str | None = None) -> None:
        self.pid, ready = fork_daemon(
            self.store_path,
            self.path,
            self.options if options is None else options,
            self.log,
            self.uid,
        )
        waiting, _, _ = select.select([ready], [], [], 20)
        line = os.read(ready, 16) if waiting else b""
        os.close(ready)
        assert line == b"ready\n", f"the daemon did not mount:\n{self.log_text()}"

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, timeout: float = 20) -> int:
        """The daemon's exit status; fails the test if it does not end."""
        assert self.pid is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = None
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise AssertionError(f"daemon {self.pid} does not end:\n{self.log_text()}")

    def unmount(self) -> None:
        """As a user does; the daemon must end well."""
        mounts.unmount(str(self.path), daemon_pid=self.pid, timeout=20)
        assert self.wait() == 0, self.log_text()

    def restart(self) -> None:
        self.unmount()
        self.start()

    def kill(self) -> None:
        """A crash of the daemon."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def clean_up(self) -> None:
        """Leaves nothing behind, whatever state it is in."""
        if self.pid is not None:
            with contextlib.suppress(OSError):
                mounts.detach(str(self.path), lazy=False)
            try:
                self.wait(10)
            except AssertionError:
                self.kill()
        while mounts.find(str(self.path)) is not None:
            mounts.detach(str(self.path), lazy=True)

    def check_log(self) -> None:
        for line in self.log_text().splitlines():
            assert not line.startswith(("ERROR", "CRITICAL", "Traceback")), self.log_text()
            assert "Fatal Python error" not in line, self.log_text()

    def check_store_is_clean(self) -> None:
        """Byte 16 of the superblock: closed cleanly."""
        with self.store_path.open("rb") as store:
            assert store.read(20)[16] == 1, "the store is not marked clean"


@pytest.fixture
def make_mounted(tmp_path: Path, transport: str) -> Iterator[Callable[..., Mounted]]:
    made: list[Mounted] = []

    def make(
        *, size: int = 256 * MIB, cluster_size: int = MIB, options: str = "", start: bool = True
    ) -> Mounted:
        directory = tmp_path / f"store{len(made)}"
        directory.mkdir()
        options = ",".join(filter(None, (options, f"transport={transport}")))
        mounted = Mounted(directory, size=size, cluster_size=cluster_size, options=options)
        made.append(mounted)
        if start:
            mounted.start()
        return mounted

    yield make
    for mounted in made:
        mounted.clean_up()
    for mounted in made:
        mounted.check_log()
        shutil.rmtree(mounted.directory, ignore_errors=True)


@pytest.fixture
def mounted(make_mounted: Callable[..., Mounted]) -> Mounted:
    """A store of 256 MiB with clusters of 1 MiB, mounted by this user."""
    return make_mounted()


@pytest.fixture
def shared(make_mounted: Callable[..., Mounted]) -> Iterator[Mounted]:
    """Root's mount, allow_other, within everybody's reach: `v` and its snapshot `s`."""
    mounted = make_mounted(options="allow_other")
    (mounted.volumes / "v").write_bytes(pattern(MIB))
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    with within_reach(mounted.path):
        yield mounted


def run(*command: str | Path, check: bool = True, timeout: float = 60, **options: object) -> str:
    """A program's output, both streams; fails the test with it unless it succeeds."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if check:
        assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return str(done.stdout)


@contextlib.contextmanager
def fails(code: int) -> Iterator[None]:
    """The block has to fail with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes that differ everywhere and can be had again."""
    return random.Random(seed).randbytes(length)
