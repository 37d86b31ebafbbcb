"""What stat(2) says about the files of a mount."""

import os
import stat
import time
import uuid
from datetime import UTC, datetime

import pyfuse3

from lvolfs.lvstore.lvol import Lvol
from lvolfs.mount import index

_FOREVER = 3600.0

_FIXED_NAMES = frozenset({index.VOLUMES, index.SNAPSHOTS, index.CONTROL, index.CHECKSUMS})


def creation_ns(lvol: Lvol) -> int:
    """An lvol's creation time in ns; 0 where the store does not tell."""
    try:
        moment = datetime.fromisoformat(lvol.creation_time)
    except (ValueError, TypeError):
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000


class Attributes:
    """Attributes of everything in the tree. Owner is whoever mounts.

    A store keeps no modification times. An lvol's is its creation at first; then the time at
    which this mount saw that it had been written to, or what utimensat(2) set.
    """

    def __init__(self, *, shared: bool = False) -> None:
        """shared: others may look at names and sizes, not at data (mount option allow_other)."""
        self._directory_mode = stat.S_IFDIR | (0o755 if shared else 0o700)
        self.uid = os.getuid()
        self.gid = os.getgid()
        self._mounted_ns = time.time_ns()
        self._modified: dict[str, tuple[int, int]] = {}

    def _entry(self, inode: int, mode: int, moment_ns: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(mode)
        entry.st_uid = self.uid
        entry.st_gid = self.gid
        entry.st_nlink = 1
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = moment_ns
        # Changes that come by RPC show at once: the kernel asks every time. Data requests,
        # the ones that are many, do not need attributes.
        entry.entry_timeout = 0
        entry.attr_timeout = 0
        return entry

    def directory(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = self._entry(inode, self._directory_mode, self._mounted_ns)
        entry.st_nlink = 2
        if inode in _FIXED_NAMES:
            entry.entry_timeout = _FOREVER
        return entry

    def text(self, inode: int) -> pyfuse3.EntryAttributes:
        """A file that is made up when it is opened; its size is not known before, as in /proc."""
        return self._entry(inode, stat.S_IFREG | 0o400, time.time_ns())

    def lvol(self, lvol: Lvol) -> pyfuse3.EntryAttributes:
        writable = not (lvol.is_snapshot or lvol.is_read_only or lvol.store.read_only)
        modified = self.modified_ns(lvol)
        entry = self._entry(lvol.id, stat.S_IFREG | (0o600 if writable else 0o400), modified)
        # Blob ids are used again after a deletion; with this the kernel knows the difference.
        entry.generation = uuid.UUID(lvol.uuid).int & 0x7FFFFFFF
        entry.st_size = lvol.size
        entry.st_blocks = lvol.num_allocated_clusters * lvol.store.cluster_size // 512
        entry.st_blksize = min(lvol.store.cluster_size, 1 << 20)
        return entry

    def modified_ns(self, lvol: Lvol) -> int:
        writes = lvol.blob.writes
        seen = self._modified.get(lvol.uuid)
        if seen is None:
            modified = time.time_ns() if writes else creation_ns(lvol)
        elif seen[0] != writes:
            modified = time.time_ns()
        else:
            return seen[1]
        self._modified[lvol.uuid] = (writes, modified)
        return modified

    def set_modified(self, lvol: Lvol, moment_ns: int) -> None:
        self._modified[lvol.uuid] = (lvol.blob.writes, moment_ns)

    def touch(self, lvol: Lvol) -> None:
        self.set_modified(lvol, time.time_ns())

    def forget(self, lvol_uuid: str) -> None:
        self._modified.pop(lvol_uuid, None)
