"""Tells the kernel what changed behind its back."""

import logging
import queue
import threading
from typing import TYPE_CHECKING

from lvolfs.lvstore.lvol import Lvol
from lvolfs.mount.index import Index

if TYPE_CHECKING:
    from lvolfs._native.lane import Lane

_log = logging.getLogger(__name__)


class Invalidator:
    """Follows a store's events: updates the index at once, and the kernel's pages soon.

    Names and attributes are never cached (see Attributes), so there are only pages to drop.
    That matters beyond speed: dropping a name waits for the lock of its directory, which a
    caller whose unlink or create is not answered yet holds. Should the daemon be killed in
    that moment, it could not end, and the mount would hang until somebody aborts it.
    """

    def __init__(self, lane: "Lane", tree_index: Index) -> None:
        self._lane = lane
        self._index = tree_index
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lvolfs-invalidate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the lane has stopped: its connection is closed, so nothing can wait."""
        self._queue.put(None)
        self._thread.join(timeout=5)

    def on_event(self, kind: str, lvol: Lvol) -> None:
        """A callback of Lvstore.events: any thread, with the store's lock held."""
        # The kernel itself grows what it writes to; told so once more, it would not believe the
        # size that a stat(2) just then asks for, and mappings and copies would find it short.
        if kind == "extended":
            return
        self._index.update(lvol)
        if kind in ("resized", "changed"):
            self._queue.put(lvol.id)

    def _run(self) -> None:
        while (inode := self._queue.get()) is not None:
            try:
                self._lane.invalidate_inode(inode)
            except OSError as error:
                _log.warning("cannot tell the kernel that inode %d changed: %s", inode, error)
