"""Random lives: which geometry, and which operation comes next."""

from __future__ import annotations

import random
from collections.abc import Callable

from lvolfs.lvstore.lvol import Lvol
from tests.crash.life import Geometry, Life, Operation
from tests.crash.view import FULLY_SHOWN, windows
from tests.crash.write_log import SECTOR

SMALL = Geometry(8192, 176, 60, 4096, 6)
# (geometry, weight): of SMALL stores most; volumes of three extent pages; other beginnings
GEOMETRIES = (
    (SMALL, 8),
    (Geometry(4096, 300, 40, 512, 8), 3),
    (Geometry(16384, 120, 100, 4096, 5), 1),
    (Geometry(4096, 320, 40, 4096, 1030), 3),
    (Geometry(8192, 176, 60, 512, 6, "run-length"), 2),
    (Geometry(8192, 160, 60, 4096, 6, "unmade"), 1),
    (Geometry(8192, 160, 60, 4096, 6, "foreign"), 1),
)


def geometry_of(seed: int) -> Geometry:
    geometries, weights = zip(*GEOMETRIES, strict=True)
    picked: Geometry = random.Random(f"geometry {seed}").choices(geometries, weights)[0]
    return picked


class Chance:
    """Lets a life do one random operation after the other."""

    def __init__(self, life: Life, seed: int) -> None:
        self.life = life
        self.random = random.Random(f"life {seed}")
        self._number = 0
        self._names = 0

    def live(self, steps: int) -> None:
        actions: list[tuple[int, Callable[[], Operation | None]]] = [
            (12, self._write),
            (3, self._unmap),
            (2, lambda: self._range_operation("write_zeroes")),
            (1, lambda: self._range_operation("allocate")),
            (4, lambda: ("flush",)),
            (3, self._parallel),
            (2, self._create),
            (1, lambda: ("create_external", self._name("e"))),
            (5, lambda: self._of_volume("snapshot", self._name("s"))),
            (3, lambda: self._of_snapshot("clone", self._name("c"))),
            (6, self._delete),
            (2, self._resize),
            (3, self._extend),
            (1, lambda: self._of_volume("inflate")),
            (2, lambda: self._of_volume("decouple")),
            (1, lambda: self._of_volume("detach")),
            (2, self._set_parent),
            (1, lambda: self._of_volume("set_external_parent")),
            (1, lambda: self._of_volume("set_read_only")),
            (1, self._rename),
            (1, lambda: ("rename_store", self._name("store"))),
            (4, self._set_xattr),
            (1, self._remove_xattr),
            (4, self._register),
            (2, self._copy),
            (1, lambda: ("reopen",)),
            (1, lambda: ("grow", self.random.randrange(1, 9))),
        ]
        choices = [action for weight, action in actions for _ in range(weight)]
        self.life.do(*self._create())
        while len(self.life.steps) < steps:
            operation = self.random.choice(choices)()
            if operation is not None:
                self.life.do(*operation)
        self.life.close()

    # -- what there is to choose from

    def _lvols(self) -> list[Lvol]:
        assert self.life.store is not None
        return self.life.store.lvols

    def _volume(self) -> Lvol | None:
        volumes = [lvol for lvol in self._lvols() if not lvol.is_read_only and lvol.size]
        return self.random.choice(volumes) if volumes else None

    def _snapshot(self) -> Lvol | None:
        snapshots = [lvol for lvol in self._lvols() if lvol.is_snapshot]
        return self.random.choice(snapshots) if snapshots else None

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _of_volume(self, kind: str, *more: object) -> Operation | None:
        lvol = self._volume()
        return None if lvol is None else (kind, lvol.name, *more)

    def _of_snapshot(self, kind: str, *more: object) -> Operation | None:
        lvol = self._snapshot()
        return None if lvol is None else (kind, lvol.name, *more)

    # -- data

    def _sectors(self, lvol: Lvol) -> tuple[int, int]:
        """First sector and count, inside of one window."""
        per_cluster = self.life.geometry.cluster_size // SECTOR
        window = self.random.choice([w for w in windows(lvol.num_clusters) if w])
        first, end = window.start * per_cluster, window.stop * per_cluster
        start = self.random.randrange(first, end)
        if self.random.random() < 0.35:
            start = start // per_cluster * per_cluster
            count = per_cluster * self.random.randrange(1, 4)
        else:
            count = self.random.randrange(1, 3 * per_cluster // 2)
        return start, min(count, end - start)

    def _write_to(self, lvol: Lvol) -> Operation:
        start, count = self._sectors(lvol)
        number = self._number + 1
        self._number += count
        return ("write", lvol.name, start, count, number)

    def _write(self) -> Operation | None:
        lvol = self._volume()
        return None if lvol is None else self._write_to(lvol)

    def _range_operation(self, kind: str) -> Operation | None:
        lvol = self._volume()
        return None if lvol is None else (kind, lvol.name, *self._sectors(lvol))

    def _unmap(self) -> Operation | None:
        lvol = self._volume()
        if lvol is None:
            return None
        if self.random.random() < 0.3:
            return ("unmap", lvol.name, 0, lvol.size // SECTOR)
        return ("unmap", lvol.name, *self._sectors(lvol))

    def _parallel(self) -> Operation | None:
        """Up to three writers, each on sectors of its own, and flushes between; half of the
        time one of them unmaps lvols that nobody writes to."""
        volumes = [lvol for lvol in self._lvols() if not lvol.is_read_only and lvol.size]
        if not volumes:
            return None
        self.random.shuffle(volumes)
        plans: list[tuple[Operation, ...]] = []
        if len(volumes) > 1 and self.random.random() < 0.5:
            emptied = volumes.pop()
            per_cluster = self.life.geometry.cluster_size // SECTOR
            clusters = [c for window in windows(emptied.num_clusters) for c in window]
            plans.append(
                tuple(("unmap", emptied.name, c * per_cluster, per_cluster) for c in clusters[:6])
            )
        for number in range(3 - len(plans)):
            lvol = self.random.choice(volumes)
            per_cluster = self.life.geometry.cluster_size // SECTOR
            sectors = [
                sector
                for window in windows(lvol.num_clusters)
                for sector in range(window.start * per_cluster, window.stop * per_cluster)
                if sector % 3 == number
            ]
            picked = self.random.sample(sectors, min(5, len(sectors)))
            plan = []
            for sector in picked:
                self._number += 1
                plan.append(("write", lvol.name, sector, 1, self._number))
            plans.append(tuple(plan))
        return ("parallel", *plans)

    def _copy(self) -> Operation | None:
        source, destination = self._snapshot(), self._volume()
        if source is None or destination is None or source.num_clusters > FULLY_SHOWN:
            return None
        if destination.num_clusters < source.num_clusters:
            return None
        some = [c for c in range(source.num_clusters) if self.random.random() < 0.5]
        return ("copy", source.name, destination.name, some if self.random.random() < 0.5 else None)

    # -- shape

    def _create(self) -> Operation:
        clusters = self.life.geometry.volume
        thick = clusters <= FULLY_SHOWN and self.random.random() < 0.2
        return ("create", self._name("v"), clusters, thick)

    def _delete(self) -> Operation | None:
        # Mostly those that can go, so that the store does not fill up.
        lvols = [lvol for lvol in self._lvols() if len(lvol.children) < 2]
        return ("delete", self.random.choice(lvols).name) if len(lvols) > 1 else None

    def _resize(self) -> Operation | None:
        lvol, usual = self._volume(), self.life.geometry.volume
        if lvol is None:
            return None
        sizes = range(1, 2 * usual) if usual <= FULLY_SHOWN else (3, 511, 512, 515, 1024, 1030)
        # To the same size is nothing at all, and makes nothing durable.
        size = self.random.choice([size for size in sizes if size != lvol.num_clusters])
        return ("resize", lvol.name, size)

    def _extend(self) -> Operation | None:
        """Of one without a parent, if there is one: others are resized."""
        usual = self.life.geometry.volume
        volumes = [each for each in self._lvols() if not each.is_read_only and each.size]
        orphans = [each for each in volumes if each.parent is None]
        if not volumes:
            return None
        lvol = self.random.choice(orphans or volumes)
        if lvol.num_clusters > 3 * usual:
            return None
        more = self.random.randrange(1, 4) if usual <= FULLY_SHOWN else 510
        return ("extend", lvol.name, lvol.num_clusters + more)

    def _set_parent(self) -> Operation | None:
        parent = self._snapshot()
        return None if parent is None else self._of_volume("set_parent", parent.name)

    def _rename(self) -> Operation | None:
        lvols = self._lvols()
        return ("rename", self.random.choice(lvols).name, self._name("r")) if lvols else None

    def _set_xattr(self) -> Operation | None:
        length = self.random.choice([3, 3000, 3000])
        return self._of_volume("set_xattr", f"key{self.random.randrange(3)}", length)

    def _remove_xattr(self) -> Operation | None:
        return self._of_volume("remove_xattr", f"key{self.random.randrange(3)}")

    def _register(self) -> Operation | None:
        lvol = self._snapshot()
        if lvol is None:
            return None
        first = self.random.randrange(lvol.num_clusters) if self.random.random() < 0.3 else None
        return ("register", lvol.name, self.random.choice(["xxh3", "crc64"]), first)
