"""Tells the kernel what changed behind its back."""

import logging
import queue
import threading
from typing import TYPE_CHECKING

from lvolfs.lvstore.lvol import Lvol
from lvolfs.mount import index
from lvolfs.mount.index import Index, file_name

if TYPE_CHECKING:
    from lvolfs._native.lane import Lane

_log = logging.getLogger(__name__)


class Invalidator:
    """Follows a store's events: renews the index at once, and the kernel's caches soon.

    The kernel may hold the lock of a directory until its own request there is answered, so
    notifications have a thread to wait in.
    """

    def __init__(self, lane: "Lane", tree_index: Index) -> None:
        self._lane = lane
        self._index = tree_index
        self._queue: queue.SimpleQueue[tuple[str, int, int, bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lvolfs-invalidate", daemon=True)
        self._names: dict[int, tuple[int, bytes]] = {}
        self._remember()

    def _remember(self) -> None:
        now = self._index.now
        names = {lvol.id: (index.VOLUMES, name) for name, lvol in now.volumes.items()}
        names |= {lvol.id: (index.SNAPSHOTS, name) for name, lvol in now.snapshots.items()}
        self._names = names

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the lane has stopped: its connection is closed, so nothing can wait."""
        self._queue.put(None)
        self._thread.join(timeout=5)

    def on_event(self, kind: str, lvol: Lvol) -> None:
        """A callback of Lvstore.events: any thread, with the store's lock held."""
        before = self._names.get(lvol.id)
        self._index.refresh()
        self._remember()
        parent, name = before or (index.VOLUMES, file_name(lvol.name))
        self._queue.put((kind, lvol.id, parent, name))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            kind, inode, parent, name = item
            try:
                if kind in ("deleted", "renamed"):
                    self._lane.invalidate_entry(parent, name)
                if kind in ("resized", "changed"):
                    self._lane.invalidate_inode(inode)
            except (OSError, ValueError) as error:
                _log.warning("cannot tell the kernel that %r was %s: %s", name, kind, error)
