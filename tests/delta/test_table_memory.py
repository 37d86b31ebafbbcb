"""Checksum tables that claim to be of as many clusters as an lvol can have take little memory and
time: they are made in an image in a few bytes."""

import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lvolfs.blobstore.superblock import MAX_CLUSTERS
from lvolfs.delta import checksums
from lvolfs.lvstore.store import Lvstore

CLUSTER = 16 << 10
MIB = 1 << 20
# A few bitmaps of one lvol; values of all clusters would be 2 GiB for each.
MOST = 400 * MIB

TELL = textwrap.dedent("""
    import sys
    from lvolfs.lvstore.store import Lvstore
    from lvolfs.report.documents import lvol_document
    with Lvstore.open(sys.argv[1]) as store:
        for lvol in store.snapshots:
            summary = lvol_document(lvol)["checksum"]
            print(lvol.name, summary is not None)
    # Not ru_maxrss, which a process inherits from the one that started it.
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) * 1024)
""")


@pytest.mark.timeout(200)
def test_tables_of_the_largest_snapshots(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=32 * MIB, cluster_size=CLUSTER) as store:
        for number in range(4):
            volume = store.create_volume(f"v{number}", MAX_CLUSTERS * CLUSTER)
            volume.pwrite(b"1", 0)
            snapshot = volume.snapshot(f"s{number}")
            if number < 2:
                # As of an SPDK that keeps none for each cluster.
                snapshot.set_reserved_xattrs({"checksum": bytes(8)}, b"")
            elif number == 2:
                lie = struct.pack("<QI", 5, MAX_CLUSTERS)
                snapshot.set_reserved_xattrs({"checksum": bytes(8)}, lie)
            else:
                assert checksums.register(snapshot).wait(60)
    done = subprocess.run(
        [sys.executable, "-c", TELL, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    *told, peak = done.stdout.splitlines()
    assert told == ["s0 True", "s1 True", "s2 False", "s3 True"], done.stderr
    assert int(peak) < MOST
