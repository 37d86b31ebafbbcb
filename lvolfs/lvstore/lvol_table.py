"""The lvols of an open store by id, name and uuid, so that no look-up walks through all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol


class LvolTable:
    """Ids are unique. Names and uuids are, too, in what this program makes; where a damaged store
    repeats one, the lvol that was added first answers to it."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lvol] = {}
        self._by_name: dict[str, list[Lvol]] = {}
        self._by_uuid: dict[str, list[Lvol]] = {}

    def __iter__(self) -> Iterator[Lvol]:
        return iter(self.by_id.values())

    def add(self, lvol: Lvol) -> None:
        self.by_id[lvol.id] = lvol
        self._by_name.setdefault(lvol.name, []).append(lvol)
        self._by_uuid.setdefault(lvol.uuid.lower(), []).append(lvol)

    def remove(self, lvol: Lvol) -> None:
        del self.by_id[lvol.id]
        _drop(self._by_name, lvol.name, lvol)
        _drop(self._by_uuid, lvol.uuid.lower(), lvol)

    def rename(self, lvol: Lvol, name: str) -> None:
        """Gives it another name, here and as lvol.name."""
        _drop(self._by_name, lvol.name, lvol)
        lvol.name = name
        self._by_name.setdefault(name, []).append(lvol)

    def named(self, name: str) -> Lvol | None:
        found = self._by_name.get(name)
        return found[0] if found else None

    def with_uuid(self, uuid: str) -> Lvol | None:
        found = self._by_uuid.get(uuid.lower())
        return found[0] if found else None


def _drop(table: dict[str, list[Lvol]], key: str, lvol: Lvol) -> None:
    table[key].remove(lvol)
    if not table[key]:
        del table[key]
