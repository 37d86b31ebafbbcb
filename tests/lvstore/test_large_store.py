"""A million owned clusters: checked, opened and opened after a crash in seconds.

Processor time is what is limited, so that a busy machine does not fail it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.delta.checksums import table
from lvolfs.delta.store_check import check_closed
from lvolfs.lvstore.store import Lvstore
from tests.image_editor import ImageEditor
from tests.large_store import give_checksums, make_large_store

VOLUMES, CLUSTERS = 4, 250_000
CHECK_SECONDS = 10
OPEN_SECONDS = 5


@contextmanager
def within(what: str, limit: float) -> Iterator[None]:
    wall, processor = time.monotonic(), time.process_time()
    yield
    took = time.process_time() - processor
    print(f"{what}: {took:.2f} s of a processor, {time.monotonic() - wall:.2f} s in all")
    assert took < limit


def crash(store: Lvstore, change: Callable[[], None]) -> None:
    change()
    store.engine.close()
    store._device.close()
    store._closed = True


@pytest.mark.timeout(300)
def test_a_million_clusters(tmp_path: Path) -> None:
    path = tmp_path / "large"
    make_large_store(path, VOLUMES, CLUSTERS)
    assert path.stat().st_blocks * 512 < 64 << 20
    with within("check", CHECK_SECONDS):
        assert check_store(str(path)) == []
    with within("open", OPEN_SECONDS):
        store = Lvstore.open(str(path))
    assert not store.replayed
    assert sum(lvol.num_allocated_clusters for lvol in store.lvols) == VOLUMES * CLUSTERS
    crash(store, lambda: store.get("v1").set_xattr("x", b"1"))
    with within("check after a crash", CHECK_SECONDS):
        assert [finding.severity for finding in check_store(str(path))] == ["note"]
    with within("open after a crash", OPEN_SECONDS):
        store = Lvstore.open(str(path))
    assert store.replayed
    assert sum(lvol.num_allocated_clusters for lvol in store.lvols) == VOLUMES * CLUSTERS
    store.close()
    image = ImageEditor(str(path))
    image.set_cluster("v3", 200_000, image.lvols["v0"].clusters[100_000])
    with within("check with a cluster that is owned twice", CHECK_SECONDS):
        findings = check_store(str(path))
    assert {finding.severity for finding in findings if "also used" in finding.text} == {"error"}
    assert len([f for f in findings if "also used" in f.text]) == 2


@pytest.mark.timeout(300)
def test_a_million_registered_checksums(tmp_path: Path) -> None:
    """`lvolfs check` reads every table, too, and believes none without its digest."""
    path = tmp_path / "large"
    make_large_store(path, VOLUMES, CLUSTERS)
    with Lvstore.open(str(path)) as store:
        for number, lvol in enumerate(store.lvols):
            give_checksums(lvol, ("xxh3", "crc64")[number % 2])
    with within("check with a million checksums", CHECK_SECONDS):
        assert check_closed(str(path)).findings == []
    with Lvstore.open(str(path)) as store:
        assert sum(table(lvol).num_registered for lvol in store.lvols) == VOLUMES * CLUSTERS
        store.get("v1").set_reserved_xattrs({"checksum": bytes(8)})
        store.get("v2").set_reserved_xattrs({"lvolfs.xxh3.7": None})
    with within("... two of whose tables are wrong", CHECK_SECONDS):
        findings = check_closed(str(path)).findings
    assert [(f.severity, f.object) for f in findings] == [
        ("warning", "lvol 'v1'"),
        ("warning", "lvol 'v2'"),
    ]
