"""10,000 lvols and 256 open files: bounded memory, threads and descriptors, and no operation that
walks through all of them. LVOLFS_MANY_LVOLS sets how many (default 10,000)."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import registry
from lvolfs.rpc.client import Client
from tests.command_line import LVOLFS
from tests.mount.conftest import MIB, Mounted, run
from tests.stress.fresh_daemon import start_afresh
from tests.stress.resources import Resources

MANY = int(os.environ.get("LVOLFS_MANY_LVOLS", "10000"))
OPEN = 256
CLUSTER = 64 << 10
SIZE = 16 * CLUSTER
# An lvol in memory: its native map and head, its Python objects and xattrs.
OF_ONE_LVOL = 8192


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is room: each of so many changes waits for the disk elsewhere."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shutil.disk_usage(shared).free < 512 * MIB:
        yield tmp_path
        return
    directory = shared / f"lvolfs-test-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def seconds_of_cpu(act: Callable[[], object]) -> float:
    begin = time.process_time()
    act()
    return time.process_time() - begin


def make(store: Lvstore, first: int, last: int) -> None:
    for number in range(first, last):
        store.create_volume(f"v{number}", SIZE)


@pytest.mark.timeout(300)
def test_many_lvols(quick_directory: Path, make_mounted: Callable[..., Mounted]) -> None:
    path = quick_directory / "store"
    make_and_open_again(str(path))
    mounted = make_mounted(size=64 * MIB, cluster_size=CLUSTER, start=False)
    mounted.store_path.unlink()
    mounted.store_path = path
    start_afresh(mounted)
    use_the_mount(mounted)


def make_and_open_again(path: str) -> None:
    tenth = MANY // 10
    with Lvstore.create(path, size=4 << 30, cluster_size=CLUSTER) as store:
        before = Resources.of()
        early = seconds_of_cpu(lambda: make(store, 0, tenth))
        make(store, tenth, MANY - tenth)
        late = seconds_of_cpu(lambda: make(store, MANY - tenth, MANY))
        # A walk through all of them, each time, made the last tenth twenty times as dear.
        assert late < 6 * early + 0.5, f"{tenth} lvols: {early:.2f} s first, {late:.2f} s last"
        during = Resources.of()
        assert during.memory - before.memory < (16 << 20) + MANY * OF_ONE_LVOL
        assert (during.descriptors, during.threads) == (before.descriptors, before.threads)
        small = seconds_of_cpu(lambda: [store.get("v0") for _ in range(100)])
        names = [f"v{number}" for number in range(MANY)]
        assert seconds_of_cpu(lambda: [store.get(name) for name in names]) < MANY * small + 0.5
    begin = time.process_time()
    with Lvstore.open(path) as store:
        assert len(store.lvols) == MANY
        assert Resources.of().threads == before.threads
    assert time.process_time() - begin < 30


def use_the_mount(mounted: Mounted) -> None:
    before = Resources.of(mounted.pid)
    listed = {entry.name for entry in mounted.volumes.iterdir()}
    assert listed == {f"v{number}" for number in range(MANY)}
    assert all((mounted.volumes / name).stat().st_size == SIZE for name in listed)
    opened = [os.open(mounted.volumes / f"v{number}", os.O_RDWR) for number in range(OPEN)]
    try:
        for number, fd in enumerate(opened):
            assert os.pwrite(fd, b"%5d" % number, 0) == 5
        os.fsync(opened[-1])
        control_plane_is_usable(mounted)
        during = Resources.of(mounted.pid)
    finally:
        for fd in opened:
            os.close(fd)
    print(f"{MANY} lvols, {OPEN} open files: {before} became {during}")
    assert during.memory < 128 * MIB + MANY * OF_ONE_LVOL
    # trio keeps threads for a while in which they are idle
    assert during.threads < before.threads + 48
    assert during.descriptors < before.descriptors + 32
    for number in range(OPEN):
        assert (mounted.volumes / f"v{number}").read_bytes()[:5] == b"%5d" % number
    after = Resources.of(mounted.pid)
    assert after.descriptors <= before.descriptors
    assert after.memory < before.memory + 64 * MIB


def control_plane_is_usable(mounted: Mounted) -> None:
    """Everything that lists, and everything that changes one of them."""
    mine = registry.find_by_store(str(mounted.store_path))
    assert mine is not None
    with Client(mine.socket, timeout=60) as client:
        assert len(client.call("bdev_get_bdevs")) == MANY + 1
        assert len(client.call("bdev_lvol_get_lvols")) == MANY
        (one,) = client.call("bdev_get_bdevs", name=f"lvs0/v{MANY - 1}")
        assert one["aliases"] == [f"lvs0/v{MANY - 1}"]
        for number in range(20):
            client.call(
                "bdev_lvol_snapshot", lvol_name=f"lvs0/v{number}", snapshot_name=f"rpc{number}"
            )
    for number in range(20):
        volume = mounted.volumes / f"v{MANY - 1 - number}"
        os.setxattr(volume, "user.lvolfs.snapshot", b"s%d" % number)
        volume.rename(mounted.volumes / f"renamed{number}")
    assert len(json.loads((mounted.status / "lvols.json").read_bytes())) == MANY + 40
    assert len(json.loads(run(LVOLFS, "ls", mounted.path, "--json"))) == MANY + 40
    assert sorted(path.name for path in mounted.snapshots.iterdir()) == sorted(
        f"{kind}{number}" for kind in ("rpc", "s") for number in range(20)
    )
    for number in range(20):
        (mounted.volumes / f"renamed{number}").unlink()
        (mounted.snapshots / f"s{number}").unlink()
