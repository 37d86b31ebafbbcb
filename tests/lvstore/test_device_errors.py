"""Devices that fail under an open store: who is told, what stays, what a reopen finds."""

import errno
import os
import random
import subprocess
from contextlib import ExitStack, suppress

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.loop_device import loop_device
from tests.torture import count

CLUSTER = 64 << 10
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")


@pytest.fixture
def path(tmp_path):
    """A store with the snapshot `base` of `v`, both with data that were flushed."""
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=16 * MIB, cluster_size=CLUSTER) as store:
        volume = store.create_volume("v", 8 * CLUSTER)
        volume.pwrite(content(1), 0)
        volume.snapshot("base")
        volume.pwrite(content(2), 2 * CLUSTER)
    return path


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def content(seed):
    return random.Random(seed).randbytes(4 * CLUSTER)


def check_old_data(path):
    assert [f for f in check_store(path) if f.severity != "note"] == []
    with Lvstore.open(path) as store:
        assert store.damaged == []
        assert store.get("base").pread(4 * CLUSTER, 0) == content(1)
        assert store.get("v").pread(4 * CLUSTER, 2 * CLUSTER) == content(2)
    assert check_store(path) == []


def abandon(store):
    """As if the process ended: nothing more is written."""
    with pytest.raises(OSError, match=r"[a-z]"):
        store.close()
    assert store.closed


def test_errors_name_lvol_and_store(path):
    with Lvstore.open(path) as store:
        volume, device = store.get("v"), store.engine.device
        device.plant_fault("read", errno.EIO)
        with pytest.raises(OSError, match=r"cannot read lvol 'v' of store 'lvs0': .*Input/"):
            volume.pread(CLUSTER, 0)
        device.clear_faults()
        device.plant_fault("write", errno.EIO)
        with pytest.raises(OSError, match=r"cannot write lvol 'v' of store 'lvs0': .*Input/"):
            volume.pwrite(b"x", 6 * CLUSTER)
        device.clear_faults()
        with pytest.raises(OSError, match=r"cannot flush lvol 'v' of store 'lvs0': .*Input/"):
            volume.flush()
        volume.store.flush()
    check_old_data(path)


def test_a_lost_write_is_forgotten_only_by_opening_again(path):
    with Lvstore.open(path) as store:
        store.engine.device.plant_fault("write", errno.EIO, times=1)
        volume = store.get("v")
        with pytest.raises(OSError, match="write"):
            volume.pwrite(b"x", 0)
        for _ in range(3):
            with pytest.raises(OSError, match="flush") as info:
                volume.flush()
            assert info.value.errno == errno.EIO
        store.get("base").flush()
    with Lvstore.open(path) as store:
        store.get("v").flush()
    check_old_data(path)


def error_of(call):
    try:
        call()
    except OSError as error:
        return error
    return None


def changes(store):
    volume = store.get("v")
    return {
        "create": lambda: store.create_volume("new", CLUSTER),
        "snapshot": lambda: volume.snapshot("s"),
        "clone": lambda: store.get("base").clone("c"),
        "resize": lambda: volume.resize(12 * CLUSTER),
        "rename": lambda: volume.rename("w"),
        "xattr": lambda: volume.set_xattr("x", b"1"),
        "inflate": volume.inflate,
        "decouple": volume.decouple,
        "delete": volume.delete,
        "merge": lambda: store.get("base").delete(),
        "detach": volume.detach,
        "store": lambda: store.rename("other"),
    }


CHANGES = [
    *("create", "snapshot", "clone", "resize", "rename", "xattr"),
    *("inflate", "decouple", "delete", "merge", "detach", "store"),
]
# What these leave of the lvols that they are about.
GIVES_UP = {"delete", "merge", "detach", "rename"}


@pytest.mark.parametrize("operation", ["write", "flush"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_fails_at_each_of_its_requests(path, tmp_path, change, operation):
    """The n-th write or flush and all after it fail: the change is there or it is not, nothing
    older is harmed, and the store opens again."""
    pristine = (tmp_path / "store").read_bytes()
    failed = injected = 0
    for skip in range(40):
        (tmp_path / "store").write_bytes(pristine)
        store = Lvstore.open(path)
        store.engine.device.plant_fault(operation, errno.EIO, skip=skip)
        error = error_of(changes(store)[change])
        done = error is None
        failed += not done
        if not store.engine.device.injected_faults:
            store.engine.device.clear_faults()
        injected += store.engine.device.injected_faults
        closing = error_of(store.close)
        assert {each.errno for each in (error, closing) if each} <= {errno.EIO}, (error, closing)
        assert store.closed
        assert [f for f in check_store(path) if f.severity == "error"] == [], (skip, done)
        with Lvstore.open(path) as again:
            assert again.damaged == []
            if not done and change not in GIVES_UP:
                assert again.get("base").pread(4 * CLUSTER, 0) == content(1)
                assert again.get("v").pread(4 * CLUSTER, 2 * CLUSTER) == content(2)
            for lvol in again.lvols:
                if lvol.name in ("v", "w") and change != "detach":
                    assert lvol.pread(2 * CLUSTER, 0) == content(1)[: 2 * CLUSTER]
                    assert lvol.pread(4 * CLUSTER, 2 * CLUSTER) == content(2)
        assert check_store(path) == []
        if done and not store.engine.device.injected_faults:
            break
    else:
        pytest.fail("it never got through")
    assert failed
    count("faults injected", injected)


def test_a_failed_flush_fails_the_store(path):
    store = Lvstore.open(path)
    volume = store.get("v")
    volume.pwrite(b"lost", 0)
    store.engine.device.plant_fault("flush", errno.EIO, times=1)
    with pytest.raises(OSError, match="flush"):
        store.flush()
    for change in changes(store).values():
        with pytest.raises(OSError, match=r"[a-z]") as info:
            change()
        assert info.value.errno == errno.EIO
    with pytest.raises(OSError, match="write"):
        volume.pwrite(b"more", 0)
    assert store.get("base").pread(4 * CLUSTER, 0) == content(1)
    abandon(store)
    with Lvstore.open(path) as again:
        again.get("v").pwrite(content(1)[:4], 0)
    check_old_data(path)


@pytest.mark.parametrize("error", [errno.ENODEV, errno.ENXIO, errno.EIO])
def test_a_device_that_goes_away(path, error):
    store = Lvstore.open(path)
    store.get("v").pwrite(b"lost", 0)
    for operation in ("read", "write", "flush"):
        store.engine.device.plant_fault(operation, error)
    volume = store.get("v")
    for call in (
        lambda: volume.pread(1, 0),
        lambda: volume.pwrite(b"x", 0),
        volume.flush,
        lambda: volume.unmap(0, CLUSTER),
        lambda: volume.snapshot("s"),
        store.flush,
    ):
        with pytest.raises(OSError, match=r"[a-z]"):
            call()
    abandon(store)
    with Lvstore.open(path) as again:
        again.get("v").pwrite(content(1)[:4], 0)
    check_old_data(path)


def test_a_file_that_shrinks(path):
    with Lvstore.open(path, read_only=True) as store:
        where = int.from_bytes(store.get("v").blob.clusters()[8:12], "little") * CLUSTER
        os.truncate(path, where + 100)
        with pytest.raises(OSError, match="cannot read lvol 'v'") as info:
            store.get("v").pread(CLUSTER, 2 * CLUSTER)
        assert info.value.errno == errno.EIO
    with pytest.raises(OSError, match="store"):
        Lvstore.open(path)


@pytest.fixture
def small_file_system(tmp_path):
    where = tmp_path / "small"
    where.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where], check=True, capture_output=True
    )
    yield where
    subprocess.run(["umount", "-l", where], check=True)


@pytest.mark.needs_root
def test_the_file_system_below_is_full_for_copies(small_file_system):
    """They take space from it before they write; a store that is full itself is told apart."""
    path = str(small_file_system / "store")
    ballast = small_file_system / "ballast"
    with Lvstore.create(path, size=64 * MIB, cluster_size=CLUSTER) as store:
        store.create_volume("base", 4 * CLUSTER).pwrite(content(1), 0)
        clone = store.get("base").snapshot("s").clone("c")
        store.engine.flush()
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        error = error_of(clone.inflate)
        assert error.errno == errno.ENOSPC
        assert f"needs more clusters, but the file system that {path} is on" in error.strerror
        error = error_of(lambda: clone.pwrite(b"f" * CLUSTER, 0))
        assert "the file system that" in error.strerror
        error = error_of(lambda: store.create_volume("t", 128 * MIB, thick=True))
        assert "store 'lvs0' has" in error.strerror
        ballast.unlink()
        clone.inflate()
        assert clone.pread(4 * CLUSTER, 0) == content(1)


@pytest.mark.needs_root
def test_the_file_system_below_is_full(small_file_system):
    """The writer is told; what was there stays, and with room everything goes on."""
    path = str(small_file_system / "store")
    ballast = small_file_system / "ballast"
    with Lvstore.create(path, size=64 * MIB, cluster_size=CLUSTER) as store:
        volume = store.create_volume("v", 48 * MIB)
        volume.pwrite(content(1), 0)
        volume.flush()
        written = 0
        ballast.write_bytes(bytes(2 * MIB))
        error = None
        while error is None:
            cluster = max(4, written + 1)
            error = error_of(lambda c=cluster: volume.pwrite(b"f" * CLUSTER, c * CLUSTER))
            written = written if error else cluster
        assert error.errno == errno.ENOSPC
        assert "lvol 'v' of store 'lvs0': it needs more room, but the file system" in error.strerror
        assert volume.pread(4 * CLUSTER, 0) == content(1)
        volume.pwrite(content(2), 0)  # owned already
        ballast.unlink()
        volume.flush()
        volume.pwrite(b"g" * CLUSTER, (written + 1) * CLUSTER)
        volume.flush()
    with Lvstore.open(path) as store:
        volume = store.get("v")
        assert volume.pread(4 * CLUSTER, 0) == content(2)
        for cluster in range(4, written + 1):
            assert volume.pread(CLUSTER, cluster * CLUSTER) == b"f" * CLUSTER
    assert check_store(path) == []


@pytest.mark.needs_loop_devices
def test_a_quota_is_used_up(tmp_path):
    """That is want of room, not a broken device: with more of it everything goes on."""
    image, mountpoint = tmp_path / "btrfs", tmp_path / "quota"
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    mountpoint.mkdir()
    limited = mountpoint / "limited"
    run("mkfs.btrfs", "-q", image)
    with loop_device(image) as device, ExitStack() as stack:
        run("mount", device, mountpoint)
        stack.callback(run, "umount", mountpoint)
        run("btrfs", "quota", "enable", mountpoint)
        run("btrfs", "subvolume", "create", limited)
        run("btrfs", "qgroup", "limit", "16M", limited)
        with Lvstore.create(str(limited / "store"), size=64 * MIB, cluster_size=CLUSTER) as store:
            volume = store.create_volume("v", 48 * MIB)
            volume.pwrite(content(1), 0)
            volume.flush()
            error, cluster = None, 3
            while error is None:
                cluster += 1
                error = error_of(lambda c=cluster: volume.pwrite(b"f" * CLUSTER, c * CLUSTER))
            assert error.errno == errno.ENOSPC
            assert "or a quota there is used up" in error.strerror
            assert volume.pread(4 * CLUSTER, 0) == content(1)
            run("btrfs", "qgroup", "limit", "none", limited)
            volume.pwrite(b"g" * CLUSTER, cluster * CLUSTER)
            volume.flush()
            assert volume.pread(CLUSTER, cluster * CLUSTER) == b"g" * CLUSTER
