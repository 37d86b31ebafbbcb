"""Running one native loop in several threads."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Final, Protocol

from lvolfs._native.control import enter_background
from lvolfs.bdev.apart import start_thread

# More than two threads gain nothing where the foreground needs the other cores.
_MOST_THREADS: Final = 2


class Loop(Protocol):
    """A native loop whose run() may be called by several threads, which share its work."""

    def run(self) -> None: ...


def threads_for(parallel: int | None) -> int:
    """How many threads a caller who wants `parallel` (None: as many as help) gets."""
    wanted = parallel if parallel is not None else os.cpu_count() or 1
    return max(1, min(wanted, _MOST_THREADS))


def run_loop(loop: Loop, threads: int) -> None:
    """In this thread and threads-1 more, as far as there are any; raises the first error of any
    of them."""
    failures: list[BaseException] = []

    def extra() -> None:
        try:
            enter_background()
            loop.run()
        except BaseException as error:
            failures.append(error)

    others: list[threading.Thread] = []
    with suppress(OSError):
        for _ in range(threads - 1):
            other = threading.Thread(target=extra, daemon=True)
            start_thread(other)
            others.append(other)
    try:
        loop.run()
    except BaseException as error:
        failures.append(error)
    for other in others:
        other.join()
    if failures:
        raise failures[0]
