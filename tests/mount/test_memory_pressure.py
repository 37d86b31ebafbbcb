"""A daemon that cannot have the memory it asks for: what fails says ENOMEM, nothing crashes, what
was flushed is there, and with memory again everything goes on."""

import contextlib
import errno
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from lvolfs.blobstore.check import check_store
from lvolfs.mount.threads import in_thread
from tests.mount.conftest import MIB, Mounted, pattern
from tests.stress.fresh_daemon import start_afresh

CGROUPS = Path("/sys/fs/cgroup/memory")
UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def fresh(make_mounted: Callable[..., Mounted]) -> Mounted:
    """`v` of 32 MiB that is durable, and its snapshot `s`."""
    mounted = make_mounted(start=False, size=1024 * MIB, cluster_size=256 * 1024)
    start_afresh(mounted)
    (mounted.volumes / "v").write_bytes(pattern(32 * MIB))
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    return mounted


def memory(mounted: Mounted, what: str) -> int:
    status = Path(f"/proc/{mounted.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


def allow(mounted: Mounted, more: int | None) -> None:
    """So many bytes of address space beyond what it has; None: as many as it likes."""
    assert mounted.pid is not None
    limit = UNLIMITED if more is None else memory(mounted, "VmSize") + more
    resource.prlimit(mounted.pid, resource.RLIMIT_AS, (limit, UNLIMITED))


def write(path: Path, data: bytes, offset: int) -> None:
    with path.open("r+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), data, offset) == len(data)
        os.fsync(file.fileno())


def read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), MIB, 0) == pattern(32 * MIB)[:MIB]


def attempts(mounted: Mounted, number: int) -> dict[str, Callable[[], object]]:
    v, s = mounted.volumes / "v", mounted.snapshots / "s"
    new, snap = mounted.volumes / f"new{number}", f"snap{number}".encode()
    return {
        "read": lambda: read(s),
        "write": lambda: write(v, pattern(3 * MIB, number), (8 + number) * MIB),
        "create": new.touch,
        "resize": lambda: os.truncate(new, 1 << 40),
        "first write": lambda: write(new, b"x" * 1000, number << 30),
        "snapshot": lambda: os.setxattr(v, "user.lvolfs.snapshot", snap),
        "large xattr": lambda: os.setxattr(v, "user.large", bytes(3000)),
        "checksums": lambda: os.setxattr(s, "user.lvolfs.checksum.register", b""),
        "clone": lambda: os.setxattr(s, "user.lvolfs.clone", b"c" + snap),
        "copy": lambda: os.setxattr(s, "user.lvolfs.copy.start", new.name.encode()),
        "status": (mounted.status / "jobs.json").read_bytes,
        "list": lambda: list(mounted.volumes.iterdir()),
    }


def settle(mounted: Mounted) -> None:
    """Jobs that were started have ended, well or not."""
    deadline = time.monotonic() + 60
    for path in mounted.snapshots.iterdir():
        for name in ("checksum.state", "copy.state"):
            with contextlib.suppress(OSError):
                while os.getxattr(path, f"user.lvolfs.{name}") == b"in progress":
                    assert time.monotonic() < deadline
                    time.sleep(0.02)


def is_alive(mounted: Mounted) -> bool:
    assert mounted.pid is not None
    pid, status = os.waitpid(mounted.pid, os.WNOHANG)
    assert pid == 0, f"it ended: {os.waitstatus_to_exitcode(status)}\n{mounted.log_text()}"
    return True


def test_allocations_that_fail(fresh: Mounted) -> None:
    failed: dict[str, set[str]] = {}
    for number, more in enumerate((0, 64 << 10, 256 << 10, MIB, 4 * MIB, 16 * MIB)):
        calls = attempts(fresh, number)
        order = list(calls)
        random.Random(number).shuffle(order)
        allow(fresh, more)
        for name in order:
            try:
                calls[name]()
            except OSError as error:
                code = error.errno or 0
                failed.setdefault(errno.errorcode[code], set()).add(name)
            assert is_alive(fresh)
        allow(fresh, None)
        settle(fresh)
        assert (fresh.snapshots / "s").read_bytes() == pattern(32 * MIB)
    # The others are of what could not be made or done before.
    assert set(failed) <= {"ENOMEM", "ENOENT", "EINVAL", "EBUSY"}, failed
    assert "ENOMEM" in failed
    for name, call in attempts(fresh, 99).items():
        call()
        assert is_alive(fresh), name
        settle(fresh)
    now = (fresh.volumes / "v").read_bytes()
    fresh.unmount()
    assert check_store(str(fresh.store_path)) == []
    start_afresh(fresh)
    assert (fresh.volumes / "v").read_bytes() == now
    assert (fresh.snapshots / "s").read_bytes() == pattern(32 * MIB)


async def test_no_thread_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not taken for a fault of lvolfs."""

    async def fail(*_arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    def bug() -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", fail)
        with pytest.raises(OSError, match="no thread") as info:
            await in_thread(bug)
    assert info.value.errno == errno.ENOMEM
    with pytest.raises(RuntimeError, match="a bug"):
        await in_thread(bug)
    assert await in_thread(max, 1, 2) == 2


@pytest.fixture
def memory_group(tmp_path: Path) -> Iterator[Path]:
    """A memory cgroup of version 1; version 2 has no such place in the middle of a hierarchy that
    is not ours."""
    if not (CGROUPS / "memory.limit_in_bytes").exists() or not os.access(CGROUPS, os.W_OK):
        pytest.skip("needs a memory cgroup (version 1) that may be written to")
    group = CGROUPS / f"lvolfs-{os.getpid()}"
    group.mkdir()
    yield group
    # Of a test that has failed the daemon may still be in it.
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (CGROUPS / "cgroup.procs").write_text(pid)
    deadline = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            break


def test_little_memory_for_much_data(fresh: Mounted, memory_group: Path) -> None:
    """The page cache of the store counts, too: ten times what is allowed is written and read."""
    limit = memory(fresh, "VmRSS") + 24 * MIB
    (memory_group / "memory.limit_in_bytes").write_text(str(limit))
    (memory_group / "cgroup.procs").write_text(str(fresh.pid))
    with (fresh.volumes / "big").open("wb", buffering=0) as file:
        for number in range(60):
            file.write(pattern(4 * MIB, number))
        os.fsync(file.fileno())
    with (fresh.volumes / "big").open("rb", buffering=0) as file:
        for number in range(60):
            assert file.read(4 * MIB) == pattern(4 * MIB, number)
    os.setxattr(fresh.volumes / "big", "user.lvolfs.snapshot", b"t")
    os.setxattr(fresh.snapshots / "t", "user.lvolfs.checksum.register", b"")
    settle(fresh)
    assert os.getxattr(fresh.snapshots / "t", "user.lvolfs.checksum.state") == b"complete"
    assert is_alive(fresh)
    fresh.unmount()
    assert check_store(str(fresh.store_path)) == []


def work_until_it_dies(mounted: Mounted) -> None:
    for number in range(100):
        for call in attempts(mounted, number).values():
            with contextlib.suppress(FileExistsError):
                call()


def test_killed_for_want_of_memory(fresh: Mounted, memory_group: Path) -> None:
    """By the kernel, in the middle of its work: what was flushed is there after the next mount."""
    write(fresh.volumes / "v", pattern(MIB, 7), 3 * MIB)
    (memory_group / "cgroup.procs").write_text(str(fresh.pid))
    # What it has already is not moved to the group: new memory is what counts.
    (memory_group / "memory.limit_in_bytes").write_text(str(MIB // 4))
    with pytest.raises(OSError, match=r"\[Errno") as info:
        work_until_it_dies(fresh)
    assert info.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV)
    assert fresh.wait() == -signal.SIGKILL
    assert [f for f in check_store(str(fresh.store_path)) if f.severity == "error"] == []
    start_afresh(fresh)
    assert (fresh.snapshots / "s").read_bytes() == pattern(32 * MIB)
    with (fresh.volumes / "v").open("rb") as file:
        file.seek(3 * MIB)
        assert file.read(MIB) == pattern(MIB, 7)
    fresh.unmount()
    assert check_store(str(fresh.store_path)) == []


def rings_of(mounted: Mounted) -> int:
    names = [str(each.readlink()) for each in Path(f"/proc/{mounted.pid}/fd").iterdir()]
    return names.count("anon_inode:[io_uring]")


def look_for_nothing(mounted: Mounted) -> None:
    """Requests that Python answers, one after the other in each of a few threads."""

    def look() -> None:
        for number in range(50):
            assert not (mounted.volumes / f"nothing{number}").exists()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("transport", ["uring"], indirect=True)
def test_rings_without_a_thread(mounted: Mounted, transport: str) -> None:
    """One that gets no thread is given back, and does not count when there are threads again."""
    before = rings_of(mounted)
    assert before, transport
    # Room for a ring, but not for the stack of its thread.
    allow(mounted, 5 * MIB)
    look_for_nothing(mounted)
    during = rings_of(mounted)
    allow(mounted, None)
    assert during == before
    look_for_nothing(mounted)
    assert rings_of(mounted) > before
