"""The daemon behind the destination, or the source, of a rebuild is killed in the middle of it:
the command says so, and after a mount, which needs no help, the same command goes on.

LVOLFS_REBUILD_KILLS (default 4), LVOLFS_REBUILD_KILL_SEED.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable

import pytest

from lvolfs.blobstore.check import check_store
from tests.mount.conftest import MIB, Mounted, pattern
from tests.mount.rebuild_command import ended, start_rebuild
from tests.stress.fresh_daemon import start_afresh

KILLS = int(os.environ.get("LVOLFS_REBUILD_KILLS", "4"))
SEED = int(os.environ.get("LVOLFS_REBUILD_KILL_SEED", "1"))
CLUSTERS = 96
CLUSTER = 256 * 1024


def change(source: Mounted, chance: random.Random, name: str) -> None:
    """A few clusters are written, one is unmapped, and a snapshot is taken."""
    volume = source.volumes / "disk"
    with volume.open("r+b", buffering=0) as file:
        for _ in range(24):
            cluster = chance.randrange(CLUSTERS)
            os.pwrite(file.fileno(), chance.randbytes(CLUSTER), cluster * CLUSTER)
        os.fsync(file.fileno())
    os.setxattr(volume, "user.lvolfs.snapshot", name.encode())


def rebuild(source: Mounted, destination: Mounted, *more: str) -> "subprocess.Popen[str]":
    return start_rebuild(f"{source.path}:disk", f"{destination.path}:disk", *more)


@pytest.mark.timeout(120 + 60 * KILLS)
def test_a_rebuild_survives_kills(make_mounted: Callable[..., Mounted]) -> None:
    chance = random.Random(SEED)
    source = make_mounted(size=192 * MIB, cluster_size=CLUSTER, start=False)
    destination = make_mounted(size=192 * MIB, cluster_size=CLUSTER, start=False)
    for mounted in (source, destination):
        start_afresh(mounted)
    volume = source.volumes / "disk"
    volume.write_bytes(pattern(CLUSTERS * CLUSTER))
    change(source, chance, "s0")
    cut_short = 0
    for round_ in range(KILLS):
        if round_ % 3 == 2:
            change(source, chance, f"s{round_}")
        killed = chance.choice([source, destination, destination])
        # Slow enough for the kill to come in the middle.
        process = rebuild(source, destination, "--rate", "20M")
        time.sleep(0.5 + chance.random())
        killed.kill()
        status, errors = ended(process)
        assert status in {0, 1}, errors
        cut_short += status
        if status:
            last = errors.strip().splitlines()[-1]
            assert last.startswith("lvolfs: "), errors
            assert "Traceback" not in errors
        found = check_store(str(killed.store_path))
        assert [item for item in found if item.severity == "error"] == []
        start_afresh(killed)
        assert "replaced a stale mount" in killed.log_text()
    assert cut_short, "no kill came in time"
    status, errors = ended(rebuild(source, destination))
    assert status == 0, errors
    assert (destination.volumes / "disk").read_bytes() == volume.read_bytes()
    for snapshot in source.snapshots.iterdir():
        copy = destination.snapshots / snapshot.name
        assert copy.read_bytes() == snapshot.read_bytes(), snapshot.name
    names = {path.name for path in destination.volumes.iterdir()}
    assert names == {"disk"}, "work in progress is left behind"
    for mounted in (source, destination):
        mounted.unmount()
        assert check_store(str(mounted.store_path)) == []
