"""After any amount of coming and going there is as much memory, descriptors, threads and free
clusters in use as before. LVOLFS_CHURN_SECONDS (default 8 each), LVOLFS_CHURN_SEED."""

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.delta import checksums, copy, jobs
from lvolfs.lvstore.store import Lvstore
from tests.mount.conftest import Mounted, make_mounted
from tests.stress.resources import Resources

SECONDS = float(os.environ.get("LVOLFS_CHURN_SECONDS", "8"))
SEED = int(os.environ.get("LVOLFS_CHURN_SEED", "1"))
CLUSTER = 64 << 10
SIZE = 16 * CLUSTER
# What allocators keep for later, and lists of the latest jobs. A leak of one small lvol in every
# round is more than that within seconds.
SLACK = 16 << 20
__all__ = ["make_mounted"]


def churn(store: Lvstore, chance: random.Random, number: int) -> None:
    """A whole life, with all of its ends."""
    volume = store.create_volume(f"v{number}", SIZE, thick=chance.random() < 0.2)
    for _ in range(4):
        volume.pwrite(chance.randbytes(CLUSTER), chance.randrange(SIZE - CLUSTER))
    first = volume.snapshot(f"s{number}")
    volume.pwrite(b"x" * CLUSTER, 0)
    second = volume.snapshot(f"t{number}", {"kept": b"for a while"})
    clone = first.clone(f"c{number}")
    clone.pwrite(b"y", SIZE - 1)
    checksums.register(first).wait()
    copy.shallow_copy(second, clone, deep=True).wait()
    cancelled = checksums.register(second)
    cancelled.cancel()
    cancelled.wait()
    with volume.open(write=True):
        volume.unmap(0, SIZE)
        volume.flush()
    volume.resize(2 * SIZE)
    clone.inflate()
    for lvol in (clone, second, volume, first):
        lvol.delete()


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_a_store_ends_as_it_began(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    Lvstore.create(path, size=64 << 20, cluster_size=CLUSTER).close()
    outside = Resources.of()
    chance = random.Random(SEED)
    with Lvstore.open(path) as store:
        store.engine.settle()
        free, pages = store.free_clusters, store.engine.free_pages
        # Everything that is made once and kept is made in the first rounds.
        for number in range(20):
            churn(store, chance, number)
        before = Resources.of()
        rounds = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            churn(store, chance, rounds)
            rounds += 1
        store.engine.settle()
        Resources.of().assert_no_more_than(before, memory=SLACK)
        assert (store.free_clusters, store.engine.free_pages) == (free, pages)
        assert store.lvols == []
        kept = len(jobs.registry(store).list())
    for _ in range(50):
        with Lvstore.open(path) as store:
            assert store.free_clusters == free
    Resources.of().assert_no_more_than(outside, memory=2 * SLACK)
    assert check_store(path) == []
    print(f"{rounds} rounds, {kept} jobs remembered")


def churn_files(mounted: Mounted, chance: random.Random, number: int) -> None:
    volume, snapshot = mounted.volumes / f"v{number}", mounted.snapshots / f"s{number}"
    data = chance.randbytes(CLUSTER)
    with volume.open("wb") as file:
        file.write(data)
        file.truncate(SIZE)
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o600)
    os.setxattr(volume, "user.lvolfs.snapshot", snapshot.name.encode())
    os.setxattr(snapshot, "user.lvolfs.clone", f"c{number}".encode())
    clone = mounted.volumes / f"c{number}"
    assert clone.read_bytes()[:CLUSTER] == data
    with volume.open("r+b") as file, clone.open("r+b") as other:
        assert os.copy_file_range(file.fileno(), other.fileno(), CLUSTER, 0, CLUSTER) == CLUSTER
    assert {entry.name for entry in mounted.volumes.iterdir()} == {volume.name, clone.name}
    os.listxattr(snapshot)
    for file_name in ("store.json", "lvols.json", "jobs.json", "metrics"):
        assert (mounted.status / file_name).read_bytes()
    clone.rename(clone.with_suffix(".renamed"))
    clone.with_suffix(".renamed").unlink()
    volume.unlink()
    snapshot.unlink()


def start_afresh(mounted: Mounted) -> None:
    """A daemon by itself: what a fork inherits of this process would blur its memory."""
    command = str(Path(sys.executable).with_name("lvolfs"))
    words = [command, "mount", "--foreground", str(mounted.store_path), str(mounted.path)]
    log = str(mounted.log)
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    mounted.pid = os.posix_spawn(command, words, dict(os.environ), file_actions=actions)
    deadline = time.monotonic() + 30
    while not mounted.path.is_mount():
        assert time.monotonic() < deadline, mounted.log_text()
        time.sleep(0.05)


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_a_mount_ends_as_it_began(make_mounted: Callable[..., Mounted]) -> None:
    mounted = make_mounted(size=64 << 20, cluster_size=CLUSTER, start=False)
    start_afresh(mounted)
    chance = random.Random(SEED)
    for number in range(20):
        churn_files(mounted, chance, number)
    free = os.statvfs(mounted.path).f_bfree
    before = Resources.of(mounted.pid)
    rounds = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        churn_files(mounted, chance, rounds)
        rounds += 1
    # What was freed last can be used again after the next flush.
    deadline = time.monotonic() + 10
    while os.statvfs(mounted.path).f_bfree < free and time.monotonic() < deadline:
        time.sleep(0.1)
    assert os.statvfs(mounted.path).f_bfree >= free
    Resources.of(mounted.pid).assert_no_more_than(before, memory=SLACK)
    print(f"{rounds} rounds")
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []


def test_open_files_are_bounded(make_mounted: Callable[..., Mounted]) -> None:
    """256 open files of 256 volumes: a bounded price, and all of it back afterwards."""
    mounted = make_mounted(size=64 << 20, cluster_size=CLUSTER)
    for number in range(256):
        (mounted.volumes / f"v{number}").touch()
        os.truncate(mounted.volumes / f"v{number}", CLUSTER)
    before = Resources.of(mounted.pid)
    opened = [os.open(mounted.volumes / f"v{number}", os.O_RDWR) for number in range(256)]
    try:
        for number, fd in enumerate(opened):
            assert os.pwrite(fd, b"%3d" % number, 0) == 3
        during = Resources.of(mounted.pid)
        assert during.memory < before.memory + (64 << 20)
        assert during.threads < before.threads + 64
        assert during.descriptors < before.descriptors + 300
    finally:
        for fd in opened:
            os.close(fd)
    for number in range(256):
        assert (mounted.volumes / f"v{number}").read_bytes()[:3] == b"%3d" % number
    after = Resources.of(mounted.pid)
    assert after.descriptors <= before.descriptors
    assert after.memory < before.memory + (64 << 20)


@pytest.mark.timeout(300)
def test_many_lvols_are_bounded(tmp_path: Path) -> None:
    """LVOLFS_MANY_LVOLS (default 1000; 10,000 by `make torture`) lvols in one store."""
    many = int(os.environ.get("LVOLFS_MANY_LVOLS", "1000"))
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=2 << 30, cluster_size=CLUSTER) as store:
        before = Resources.of()
        for number in range(many):
            store.create_volume(f"v{number}", SIZE)
        during = Resources.of()
        assert during.memory - before.memory < (16 << 20) + many * 16384
        assert during.descriptors == before.descriptors
        assert during.threads == before.threads
    begin = time.monotonic()
    with Lvstore.open(path) as store:
        assert len(store.lvols) == many
        assert Resources.of().threads == before.threads
    assert time.monotonic() - begin < 30
