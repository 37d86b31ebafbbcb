"""Growth for writes past the end: no barrier of its own, durable with the next flush."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore import resizing
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10
MANY = 1100  # clusters: three extent pages


@pytest.fixture
def store(tmp_path: Path) -> Lvstore:
    path = str(tmp_path / "store")
    return Lvstore.create(path, size=128 << 20, cluster_size=CLUSTER)


def cut(store: Lvstore) -> Lvstore:
    """What a crash of the process leaves, opened."""
    copy = f"{store.path}.cut"
    shutil.copyfile(store.path, copy)
    return Lvstore.open(copy)


def block(number: int) -> bytes:
    return b"%8d" % number * 512


def append(lvol: Lvol, number: int) -> None:
    end = lvol.size
    lvol.extend(end + 1)
    assert lvol.size == end + CLUSTER
    lvol.pwrite(block(number), end)


def assert_appended(lvol: Lvol, count: int) -> None:
    assert lvol.size == count * CLUSTER
    for number in range(count):
        assert lvol.pread(4096, number * CLUSTER) == block(number)
        assert lvol.pread(4096, number * CLUSTER + 4096) == bytes(4096)


def test_growth_is_durable_with_a_flush_and_costs_none(store: Lvstore) -> None:
    with store:
        volume = store.create_volume("v", 0)
        for number in range(MANY):
            append(volume, number)
            if number in {0, 511, 512, 600, MANY - 1}:
                volume.flush()
                with cut(store) as found:
                    assert_appended(found.get("v"), number + 1)
                assert check_store(f"{store.path}.cut") == []
        assert_appended(volume, MANY)
    with Lvstore.open(store.path) as again:
        assert_appended(again.get("v"), MANY)
    assert check_store(store.path) == []


def test_without_a_flush_it_has_its_old_size_or_a_newer_one(store: Lvstore) -> None:
    with store:
        volume = store.create_volume("v", 0)
        append(volume, 0)
        volume.flush()
        for number in range(1, 40):
            append(volume, number)
            with cut(store) as found:
                lvol = found.get("v")
                assert CLUSTER <= lvol.size <= (number + 1) * CLUSTER
                assert lvol.pread(4096, 0) == block(0)
            assert check_store(f"{store.path}.cut") == []


def test_it_never_shrinks(store: Lvstore) -> None:
    with store:
        volume = store.create_volume("v", 5 * CLUSTER)
        volume.extend(2 * CLUSTER)
        volume.extend(0)
        assert volume.size == 5 * CLUSTER
        with pytest.raises(OSError, match="must not be negative") as caught:
            volume.extend(-1)
        assert caught.value.errno == errno.EINVAL


def test_what_a_parent_has_behind_the_old_end_stays_hidden(store: Lvstore) -> None:
    with store:
        volume = store.create_volume("v", 4 * CLUSTER)
        volume.pwrite(b"x" * 4 * CLUSTER, 0)
        volume.snapshot("s")
        volume.resize(CLUSTER)
        volume.extend(4 * CLUSTER)
        assert volume.pread(4 * CLUSTER, 0) == b"x" * CLUSTER + bytes(3 * CLUSTER)
        with pytest.raises(OSError, match="snapshot"):
            store.get("s").extend(9 * CLUSTER)


def test_thick_volumes_get_their_clusters_at_once(store: Lvstore) -> None:
    with store:
        volume = store.create_volume("v", CLUSTER, thick=True)
        volume.extend(3 * CLUSTER)
        assert volume.num_allocated_clusters == 3


def test_without_pages_to_spare_it_is_an_ordinary_resize(
    store: Lvstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store:
        volume = store.create_volume("v", 0)
        monkeypatch.setattr(resizing, "SPARE_PAGES", 1 << 32)
        volume.extend(CLUSTER)
        with cut(store) as found:
            assert found.get("v").size == CLUSTER


def test_pages_come_back(store: Lvstore) -> None:
    """Each growth moves the last page of the map; the old one must not be lost."""
    with store:
        volume = store.create_volume("v", 0)
        append(volume, 0)
        volume.flush()
        store.engine.settle()
        before = store.engine.free_pages
        for number in range(1, 500):
            append(volume, number)
        volume.flush()
        store.engine.settle()
        assert store.engine.free_pages == before
    assert check_store(store.path) == []
    assert os.path.getsize(store.path) == 128 << 20  # noqa: PTH202
