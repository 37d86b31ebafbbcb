"""Which lvol a file name or an inode number stands for.

Kept up to date by the store's events, one lvol at a time, so that a change costs the same among
ten thousand lvols; look-ups take no lock and never wait for a long operation.
"""

import os
from dataclasses import dataclass

import pyfuse3

from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore

ROOT = int(pyfuse3.ROOT_INODE)
VOLUMES = 2
SNAPSHOTS = 3
CONTROL = 4
CHECKSUMS = 5
STATUS_FILES = {6: b"store.json", 7: b"lvols.json", 8: b"jobs.json", 9: b"metrics"}

# Blob ids lie above 2**32 and far below this: inode numbers are blob ids, and with this bit
# those of the checksum files.
CHECKSUM_FILE = 1 << 62

NAME_MAX = 255


def file_name(lvol_name: str) -> bytes:
    """The name of an lvol as one of a file: what a directory cannot hold is %-escaped."""
    raw = os.fsencode(lvol_name)
    if raw in {b".", b".."}:
        return raw.replace(b".", b"%2E")
    return raw.replace(b"/", b"%2F")


@dataclass(frozen=True)
class _Place:
    """Where an lvol is shown, and what decides on that of its parent."""

    directory: dict[bytes, Lvol]
    name: bytes
    parent: Lvol | None


class Index:
    """`volumes` and `snapshots` by file name, `by_id` by inode. Each of their operations is one
    step under the interpreter's lock; copy (`list(...)`) what is to be gone through."""

    def __init__(self, store: Lvstore) -> None:
        self.volumes: dict[bytes, Lvol] = {}
        self.snapshots: dict[bytes, Lvol] = {}
        self.by_id: dict[int, Lvol] = {}
        self._places: dict[int, _Place] = {}
        # two lvols have had the same file name: a/b and a%2Fb
        self._ambiguous = False
        self._store = store
        with store.lock:
            self._fill()

    def _fill(self) -> None:
        for lvol in self._store.lvols:
            self._enter(lvol)

    def update(self, lvol: Lvol) -> None:
        """After any change of an lvol, its deletion included; with the store's lock held.

        An lvol with children is a snapshot, so a change of its parent can move that, too.
        """
        before = self._places.get(lvol.id)
        parents = {before.parent if before is not None else None, lvol.parent}
        for each in (lvol, *parents):
            if each is not None:
                self._move(each)
        if self._ambiguous:
            self._fill()

    def _move(self, lvol: Lvol) -> None:
        """The new place first: what exists is found at every moment."""
        before = self._places.get(lvol.id)
        if not lvol.deleted:
            self._enter(lvol)
        elif self.by_id.get(lvol.id) is lvol:
            del self.by_id[lvol.id], self._places[lvol.id]
        now = self._places.get(lvol.id)
        if before is None or (
            now is not None and now.directory is before.directory and now.name == before.name
        ):
            return
        if before.directory.get(before.name) is lvol:
            del before.directory[before.name]

    def _enter(self, lvol: Lvol) -> None:
        directory = self.snapshots if lvol.is_snapshot else self.volumes
        name = file_name(lvol.name)
        self._ambiguous |= directory.get(name, lvol) is not lvol
        self._places[lvol.id] = _Place(directory, name, lvol.parent)
        self.by_id[lvol.id] = lvol
        directory[name] = lvol

    def directory(self, inode: int) -> dict[bytes, Lvol]:
        """The lvols of volumes/ or snapshots/."""
        return self.snapshots if inode == SNAPSHOTS else self.volumes

    def lvol(self, inode: int) -> Lvol | None:
        """The lvol whose file, or whose file of checksums, has this inode number."""
        return self.by_id.get(inode & ~CHECKSUM_FILE)
