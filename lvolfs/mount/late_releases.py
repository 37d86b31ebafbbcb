"""close(2) returns before the kernel tells us: rm right after it should not find a file "open"."""

import errno
from collections.abc import Callable, Sized
from typing import TypeVar, TypeVarTuple

import trio

from lvolfs.mount.threads import in_thread

_Args = TypeVarTuple("_Args")
_R = TypeVar("_R")

PATIENCE = 1.0
"""Seconds that a change waits for the end of whoever may be closing just now."""


class LateReleases:
    """Changes that are tried again when they are refused and a file is closed meanwhile."""

    def __init__(self, open_files: Sized) -> None:
        self._open_files = open_files
        self._released = trio.Event()

    def note(self) -> None:
        """A file has been closed."""
        self._released.set()
        self._released = trio.Event()

    async def patiently(self, function: Callable[[*_Args], _R], *args: *_Args) -> _R:
        """Runs it in a thread; again when it raises EBUSY and a file is closed in time."""
        deadline = trio.current_time() + PATIENCE
        while True:
            released = self._released
            try:
                return await in_thread(function, *args)
            except OSError as error:
                # What was closed during the attempt may have come too late for it.
                hope = len(self._open_files) > 0 or released.is_set()
                if error.errno != errno.EBUSY or not hope or trio.current_time() >= deadline:
                    raise
                with trio.move_on_at(deadline) as scope:
                    await released.wait()
                if scope.cancelled_caught:
                    raise
