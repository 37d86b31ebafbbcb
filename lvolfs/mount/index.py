"""Which lvol a file name or an inode number stands for.

A snapshot of the store's lvols, replaced as a whole after each change, so that look-ups take
no lock and never wait for a long operation.
"""

import os
from dataclasses import dataclass, field

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
class Snapshot:
    """The lvols at one moment."""

    volumes: dict[bytes, Lvol] = field(default_factory=dict)
    snapshots: dict[bytes, Lvol] = field(default_factory=dict)
    by_id: dict[int, Lvol] = field(default_factory=dict)


class Index:
    def __init__(self, store: Lvstore) -> None:
        self._store = store
        self.now = Snapshot()
        self.refresh()

    def refresh(self) -> None:
        """Reads the store's lvols anew. From any thread that may take the store's lock."""
        volumes: dict[bytes, Lvol] = {}
        snapshots: dict[bytes, Lvol] = {}
        by_id: dict[int, Lvol] = {}
        for lvol in self._store.lvols:
            (snapshots if lvol.is_snapshot else volumes)[file_name(lvol.name)] = lvol
            by_id[lvol.id] = lvol
        self.now = Snapshot(volumes, snapshots, by_id)

    def directory(self, inode: int) -> dict[bytes, Lvol]:
        """The lvols of volumes/ or snapshots/."""
        return self.now.snapshots if inode == SNAPSHOTS else self.now.volumes

    def lvol(self, inode: int) -> Lvol | None:
        """The lvol whose file, or whose file of checksums, has this inode number."""
        return self.now.by_id.get(inode & ~CHECKSUM_FILE)
