"""From mount to clean end: signals, busy mounts, crashes, options."""

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyfuse3
import pytest

from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import mountpoint as mounts
from lvolfs.mount.errors import request
from lvolfs.mount.options import MountOptions
from lvolfs.mount.session import prepare_mountpoint
from tests.command_line import LVOLFS
from tests.loop_device import loop_device
from tests.mount.conftest import ENABLE_URING, MIB, Mounted, both_transports, fails, pattern, run

Make = Callable[..., Mounted]


@both_transports
def test_unmounting_leaves_a_clean_store(mounted: Mounted) -> None:
    (mounted.volumes / "v").write_bytes(pattern(3 * MIB))
    mounted.unmount()
    mounted.check_store_is_clean()
    with Lvstore.open(str(mounted.store_path), read_only=True) as store:
        assert not store.replayed
        assert store.get("v").pread(3 * MIB, 0) == pattern(3 * MIB)
    assert list(mounted.path.iterdir()) == []


@both_transports
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_end_it_cleanly(mounted: Mounted, number: signal.Signals) -> None:
    (mounted.volumes / "v").write_bytes(pattern(3 * MIB))
    assert mounted.pid is not None
    os.kill(mounted.pid, number)
    assert mounted.wait() == 0
    assert not mounts.is_mounted(str(mounted.path))
    mounted.check_store_is_clean()


@both_transports
def test_a_signal_ends_a_busy_mount_too(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    with file.open("wb", buffering=0) as raw:
        raw.write(pattern(2 * MIB))
        assert mounted.pid is not None
        os.kill(mounted.pid, signal.SIGTERM)
        assert mounted.wait() == 0
        mounted.check_store_is_clean()
        with fails(errno.ENOTCONN):
            os.pwrite(raw.fileno(), b"x", 0)
        with pytest.raises(OSError, match="not connected"):
            raw.close()
    assert "is in use by process" in mounted.log_text()
    mounted.start()
    assert file.read_bytes() == pattern(2 * MIB)


@both_transports
def test_umount_8_ends_the_daemon(mounted: Mounted) -> None:
    run("umount", mounted.path)
    assert mounted.wait() == 0
    mounted.check_store_is_clean()


@both_transports
def test_a_busy_mount_says_who_holds_it(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    holder = subprocess.Popen(["sleep", "60"], cwd=mounted.volumes)
    try:
        with pytest.raises(OSError, match=f"process {holder.pid} sleep .*/mnt/volumes"):
            mounts.unmount(str(mounted.path), daemon_pid=mounted.pid)
    finally:
        holder.kill()
        holder.wait()
    with file.open("rb"), pytest.raises(OSError, match=f"process {os.getpid()} .*/volumes/v"):
        mounts.unmount(str(mounted.path), daemon_pid=mounted.pid)
    assert file.read_bytes() == pattern(MIB)
    mounted.unmount()


@pytest.mark.needs_loop_devices
def test_a_loop_device_is_named_as_holder(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    with (
        loop_device(file) as device,
        pytest.raises(OSError, match=f"{device} .*/mnt/volumes/v"),
    ):
        mounts.unmount(str(mounted.path), daemon_pid=mounted.pid)
    deadline = time.monotonic() + 10
    while mounts.holders(str(mounted.path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    mounted.unmount()


@both_transports
def test_a_crash_leaves_a_stale_mount_that_is_replaced(mounted: Mounted, transport: str) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(MIB))
    with file.open("rb") as raw:
        os.fsync(raw.fileno())
    mounted.kill()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        mounted.path.stat()
    # What the kernel was about to hand to a ring of the dead process is cancelled or aborted.
    expected = {errno.ENOTCONN}
    if transport == "uring":
        expected |= {errno.ECONNABORTED, errno.ECANCELED}
    assert caught.value.errno in expected
    assert mounts.is_stale(str(mounted.path))
    mounted.start()
    assert file.read_bytes() == pattern(MIB)
    assert "replaced a stale mount" in mounted.log_text()
    mounted.kill()
    mounts.unmount(str(mounted.path))
    assert not mounts.is_mounted(str(mounted.path))


def test_what_is_no_mount_point(mounted: Mounted, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not exist"):
        prepare_mountpoint(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="is not a directory"):
        prepare_mountpoint(str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"store '.*store\.img' is mounted on .* already"):
        prepare_mountpoint(str(mounted.path))
    with pytest.raises(OSError, match="no lvolfs store is mounted"):
        mounts.unmount(str(tmp_path))


def test_a_mounted_store_cannot_be_opened_again(mounted: Mounted) -> None:
    with pytest.raises(OSError, match=str(mounted.pid)) as caught:
        Lvstore.open(str(mounted.store_path))
    assert caught.value.errno == errno.EBUSY


def test_store_names_with_odd_characters(make_mounted: Make, tmp_path: Path) -> None:
    mounted = make_mounted(start=False)
    odd = mounted.directory / "a, b\\c\td.img"
    mounted.store_path.rename(odd)
    mounted.store_path = odd
    mounted.start()
    found = mounts.find(str(mounted.path))
    assert found is not None
    assert found.store == str(odd)
    mounts.unmount(str(mounted.path))  # waits for the store's lock: no pid given
    assert mounted.wait() == 0


def test_what_was_negotiated(mounted: Mounted) -> None:
    """max_background as the kernel has it; only root's control file system shows it."""
    number = os.minor(mounted.path.stat().st_dev)
    control = Path("/sys/fs/fuse/connections")
    mounted_here = not control.joinpath(str(number)).exists()
    if mounted_here:
        run("mount", "-t", "fusectl", "none", control)
    try:
        assert (control / str(number) / "max_background").read_text().strip() == "256"
    finally:
        if mounted_here:
            run("umount", control)


def test_options() -> None:
    options = MountOptions.parse("ro,allow_other,threads=3,max_background=64,noatime,_netdev,x-y=z")
    assert options == MountOptions(
        read_only=True,
        allow_other=True,
        threads=3,
        max_background=64,
        passed=("noatime",),
    )
    assert MountOptions.parse("transport=dev").transport == "dev"
    assert options.for_fuse("/a,b", read_only=True) == (
        "fsname=/a\\,b,subtype=lvolfs,nosuid,nodev,noatime,allow_other,default_permissions,ro"
    )
    for wrong in ("sideways", "threads=0", "threads=x", "max_background=70000", "transport=x"):
        with pytest.raises(OSError, match=wrong.split("=", maxsplit=1)[0]):
            MountOptions.parse(wrong)


@both_transports
def test_the_transport_that_was_asked_for(mounted: Mounted, transport: str) -> None:
    assert ("come through io_uring" in mounted.log_text()) == (transport == "uring")


@pytest.mark.usefixtures("fuse_over_io_uring")
def test_auto_reads_the_device_where_io_uring_is_offered_too(make_mounted: Make) -> None:
    mounted = make_mounted(start=False)
    mounted.start("transport=auto")
    assert "come through io_uring" not in mounted.log_text()


@pytest.mark.needs_root
def test_no_io_uring_no_mount(mounted: Mounted, tmp_path: Path) -> None:
    """Nothing stays behind of a mount that cannot have what it was asked for."""
    mounted.unmount()
    before = ENABLE_URING.read_text() if ENABLE_URING.exists() else None
    if before is not None and before.strip() == "Y":
        ENABLE_URING.write_text("N")
    try:
        said = run(
            LVOLFS, "mount", mounted.store_path, mounted.path, "-o", "transport=uring", check=False
        )
    finally:
        if before is not None:
            ENABLE_URING.write_text(before)
    assert "parameters/enable_uring" in said
    assert "Traceback" not in said
    assert not mounts.is_mounted(str(mounted.path))
    mounted.check_store_is_clean()


@both_transports
def test_requests_that_wait_for_python_hold_up_no_other(mounted: Mounted) -> None:
    """More at a time than a transport has threads; data are read meanwhile."""
    file = mounted.volumes / "v"
    data = pattern(MIB)
    file.write_bytes(data)
    done = threading.Event()

    def ask(number: int) -> None:
        while not done.is_set():
            os.setxattr(file, f"user.note{number}", b"x" * 100)
            mounted.volumes.stat()

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for asker in askers:
        asker.start()
    try:
        with file.open("rb", buffering=0) as raw:
            for at in range(0, MIB, 4096):
                assert os.pread(raw.fileno(), 4096, at) == data[at : at + 4096]
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert len(os.listxattr(file)) >= len(askers)


def test_one_thread_is_enough(make_mounted: Make) -> None:
    """Nothing in the lane may wait for another request that the same thread has to answer."""
    mounted = make_mounted(options="threads=1,max_background=4")
    file = mounted.volumes / "v"
    file.write_bytes(pattern(5 * MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    run("cp", file, mounted.volumes / "w")
    (mounted.volumes / "w").rename(mounted.volumes / "x")
    assert (mounted.volumes / "x").read_bytes() == pattern(5 * MIB)
    (mounted.volumes / "x").unlink()


async def test_a_failing_handler_is_eio_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    @request
    async def handler(what: Exception) -> None:
        raise what

    for raised, code in (
        (ValueError("unforeseen"), errno.EIO),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (OSError("without a number"), errno.EIO),
        (pyfuse3.FUSEError(errno.EBADF), errno.EBADF),
    ):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await handler(raised)
        assert caught.value.errno == code
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "handler failed unexpectedly"
    ] * 2
