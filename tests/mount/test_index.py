"""Which lvol a name stands for, kept up to date change by change."""

import contextlib
import random
from pathlib import Path

from lvolfs.lvstore.store import Lvstore
from lvolfs.mount.index import Index, file_name


def assert_as_new(index: Index, store: Lvstore) -> None:
    fresh = Index(store)
    assert index.volumes == fresh.volumes
    assert index.snapshots == fresh.snapshots
    assert index.by_id == fresh.by_id


def one_change(store: Lvstore, chance: random.Random, number: int) -> None:
    lvols = store.lvols
    lvol = chance.choice(lvols) if lvols else store.create_volume("first", 0)
    kind = chance.randrange(8)
    # a snapshot with several clones, or one that cannot be detached
    with contextlib.suppress(OSError):
        if kind < 2:
            store.create_volume(f"v{number}", store.cluster_size)
        elif kind == 2 and not lvol.is_snapshot:
            lvol.snapshot(f"s{number}")
        elif kind == 3 and lvol.is_snapshot:
            lvol.clone(f"c{number}")
        elif kind == 4:
            lvol.rename(f"r{number}")
        elif kind == 5 and lvol.parent is not None:
            chance.choice([lvol.inflate, lvol.decouple, lvol.detach])()
        elif kind > 5 and len(lvols) > 12:
            lvol.delete()


def test_every_change_is_followed(tmp_path: Path) -> None:
    chance = random.Random(1)
    with Lvstore.create(str(tmp_path / "s"), size=64 << 20, cluster_size=64 << 10) as store:
        index = Index(store)
        store.events.append(lambda _kind, lvol: index.update(lvol))
        for number in range(400):
            one_change(store, chance, number)
            assert_as_new(index, store)
        assert len(index.by_id) > 10


def test_a_snapshot_that_is_one_only_by_its_clone(tmp_path: Path) -> None:
    """SPDK marks some parents as nothing; without the clone they are volumes again."""
    with Lvstore.create(str(tmp_path / "s"), size=32 << 20, cluster_size=64 << 10) as store:
        volume = store.create_volume("v", store.cluster_size)
        parent = volume.snapshot("p")
        parent.metadata.data_ro = 0
        index = Index(store)
        store.events.append(lambda _kind, lvol: index.update(lvol))
        assert list(index.snapshots) == [b"p"]
        volume.delete()
        assert list(index.snapshots) == []
        assert list(index.volumes) == [b"p"]


def test_two_lvols_of_one_file_name(tmp_path: Path) -> None:
    """SPDK allows a slash, which is shown as %2F: one of the two is shown, and never none."""
    with Lvstore.create(str(tmp_path / "s"), size=32 << 20, cluster_size=64 << 10) as store:
        slash, percent = store.create_volume("x", 0), store.create_volume("a%2Fb", 0)
        index = Index(store)
        store.events.append(lambda _kind, lvol: index.update(lvol))
        store.rename_lvol(slash, "a/b")
        index.update(slash)
        shown = index.volumes[file_name("a/b")]
        shown.delete()
        assert list(index.volumes.values()) == [percent if shown is slash else slash]
