"""Ends a test whose threads stand still, with the stacks of all of them."""

import faulthandler
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Watchdog:
    """Everybody calls `progress` after each step; `stall` seconds without one are a deadlock."""

    def __init__(self, stall: float) -> None:
        self._stall = stall
        self._latest = time.monotonic()
        self._end = threading.Event()
        self.stalled = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.steps = 0

    def progress(self) -> None:
        self._latest = time.monotonic()
        self.steps += 1

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            if time.monotonic() - self._latest > self._stall:
                self.stalled = True
                faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
                return

    @contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._end.set()
            self._thread.join()


def join_all(threads: list[threading.Thread], watchdog: Watchdog) -> None:
    """Waits for threads as long as anything moves."""
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)
            assert not watchdog.stalled, f"{thread.name} and others stand still: stacks above"
