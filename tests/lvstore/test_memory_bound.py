"""Memory goes with the metadata that an image really holds, whatever the counts in it say.

Each case runs in a process of its own, whose peak of resident memory is measured over that of one
which opens an ordinary store.
"""

import os
import struct
import subprocess
import sys
import textwrap

import pytest
from image_editor import ImageEditor

from lvolfs.blobstore.superblock import MAX_CLUSTERS
from lvolfs.lvstore.store import Lvstore

CLUSTER = 16 << 10
MIB = 1 << 20
# Beyond what Python and an ordinary store take.
MOST = 24 * MIB

MEASURE = textwrap.dedent("""
    import resource, sys
    from lvolfs.blobstore.check import check_store
    from lvolfs.lvstore.store import Lvstore
    from lvolfs.report.documents import cluster_map_document, lvol_map_document
    check_store(sys.argv[1])
    with Lvstore.open(sys.argv[1]) as store:
        cluster_map_document(store)
        for lvol in store.lvols:
            lvol.pread(min(4096, lvol.size), 0)
            lvol_map_document(lvol)
            try:
                lvol.blob.seek_data(0)
            except OSError:
                pass
        print(len(store.lvols), len(store.damaged))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
""")


def measure(path):
    """(lvols, damaged blobs, peak of resident bytes) of checking, opening and using a store."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    counts, peak = done.stdout.splitlines()
    lvols, damaged = counts.split()
    return int(lvols), int(damaged), int(peak)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("ordinary") / "store")
    with Lvstore.create(path, size=16 * MIB, cluster_size=CLUSTER) as store:
        store.create_volume("v", 100 * CLUSTER).pwrite(b"1", 0)
    return measure(path)[2]


def many_blobs(path, count):
    with Lvstore.create(path, size=64 * MIB, cluster_size=CLUSTER) as store:
        for number in range(count):
            store.create_volume(f"v{number:03}", 600 * CLUSTER).pwrite(b"1", 0)
    return ImageEditor(path)


def replace_table(image, name, descriptor):
    """Puts it where the blob's extent table is, up to the end of its only page."""
    root = image.lvols[name].chain[0]
    at = image.find(root, struct.pack("<Q", 600)) - 5
    image.edit_page(root, at, descriptor.ljust(4088 - at, b"\0"))


def table(clusters, entries):
    payload = struct.pack("<Q", clusters) + b"".join(struct.pack("<II", *e) for e in entries)
    return struct.pack("<BI", 5, len(payload)) + payload


def runs(entries):
    payload = b"".join(struct.pack("<II", *entry) for entry in entries)
    return struct.pack("<BI", 1, len(payload)) + payload


@pytest.mark.timeout(300)
def test_many_of_the_largest_lvols(tmp_path, ordinary):
    """300 lvols of 2^28 clusters: 300 GiB of map if each cluster took its four bytes."""
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=64 * MIB, cluster_size=CLUSTER) as store:
        for number in range(150):
            volume = store.create_volume(f"v{number}", MAX_CLUSTERS * CLUSTER)
            volume.pwrite(b"end", volume.size - 3)
            volume.snapshot(f"s{number}")
    lvols, damaged, peak = measure(path)
    assert (lvols, damaged) == (300, 0)
    assert peak - ordinary < MOST


@pytest.mark.timeout(300)
def test_extent_pages_that_everybody_names(tmp_path, ordinary):
    """Each table names 400 pages, the same for all: 800 KiB of map for each first page."""
    path = str(tmp_path / "store")
    image = many_blobs(path, 300)
    pages = [blob.extent_pages[0] for blob in image.lvols.values()]
    for index, page in enumerate(pages):
        # The page of extent `index`, with 512 clusters of its own.
        body = struct.pack("<BII", 6, 4 + 4 * 512, index * 512)
        image.edit_page(page, 16, body + struct.pack("<512I", *range(1000, 1512)))
    for name in image.lvols:
        replace_table(image, name, table(300 * 512, [(page, 1) for page in pages]))
    lvols, damaged, peak = measure(path)
    assert damaged == 300
    assert lvols == 0
    assert peak - ordinary < MOST


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["one long run", "one cluster in each extent"])
def test_runs_that_everybody_has(tmp_path, ordinary, how):
    """Run-length extents, 8 bytes for any number of clusters; the same ones for 300 lvols."""
    path = str(tmp_path / "store")
    image = many_blobs(path, 300)
    with Lvstore.open(path, read_only=True) as store:
        total = store.engine.total_clusters
    if how == "one long run":
        entries = [(1000, total - 1000)] * 200
    else:
        entries = [pair for c in range(200) for pair in ((1000 + c, 1), (0, 511))]
    for name in image.lvols:
        root = image.lvols[name].chain[0]
        at = image.find(root, struct.pack("<BI", 3, 24)) + 5
        image.edit_page(root, at, struct.pack("<Q", 1))
        replace_table(image, name, runs(entries))
    lvols, damaged, peak = measure(path)
    assert lvols + damaged == 300
    assert damaged >= 298
    assert peak - ordinary < MOST


@pytest.mark.timeout(120)
def test_less_than_16_bytes_for_each_owned_cluster(tmp_path):
    """Two stores that differ in a million owned clusters."""
    peaks = []
    for clusters in (1000, 1_001_000):
        path = str(tmp_path / f"{clusters}")
        with Lvstore.create(path, size=(1_001_000 + 12_000) * MIB, cluster_size=MIB) as store:
            store.create_volume("v", clusters * MIB, thick=True)
        script = (
            "import resource, sys\n"
            "from lvolfs.lvstore.store import Lvstore\n"
            "def now():\n"
            "    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
            "with Lvstore.open(sys.argv[1]) as store:\n"
            "    assert store.get('v').num_allocated_clusters == int(sys.argv[2])\n"
            "    print(now())\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, path, str(clusters)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        peaks.append([int(word) for word in done.stdout.split()])
    open_now, peak = (more - less for less, more in zip(*peaks, strict=True))
    print(f"{open_now / 1e6:.1f} bytes for each owned cluster, {peak / 1e6:.1f} while opening")
    assert open_now < 16 * 1_000_000
    assert peak < 32 * 1_000_000
