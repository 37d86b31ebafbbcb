"""After any amount of coming and going there is as much memory, descriptors, threads and free
clusters in use as before. LVOLFS_CHURN_SECONDS (default 8 each), LVOLFS_CHURN_SEED."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.delta import checksums, copy, jobs
from lvolfs.lvstore.store import Lvstore
from tests.mount.conftest import Mounted
from tests.stress.fresh_daemon import start_afresh
from tests.stress.resources import Resources

SECONDS = float(os.environ.get("LVOLFS_CHURN_SECONDS", "8"))
SEED = int(os.environ.get("LVOLFS_CHURN_SEED", "1"))
CLUSTER = 64 << 10
SIZE = 16 * CLUSTER
# What allocators keep for later, and lists of the latest jobs. A leak of one small lvol in every
# round is more than that within seconds.
SLACK = 16 << 20


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
        after = Resources.of()
        after.assert_no_more_than(before, memory=SLACK)
        assert (store.free_clusters, store.engine.free_pages) == (free, pages)
        assert store.lvols == []
        kept = len(jobs.registry(store).list())
    for _ in range(50):
        with Lvstore.open(path) as store:
            assert store.free_clusters == free
    Resources.of().assert_no_more_than(outside, memory=2 * SLACK)
    assert check_store(path) == []
    print(f"{rounds} rounds, {kept} jobs remembered; {before} became {after}")


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
    after = Resources.of(mounted.pid)
    after.assert_no_more_than(before, memory=SLACK)
    print(f"{rounds} rounds; {before} became {after}")
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []
