"""Threads for what must not run, or must not be waited for, in the thread that asks."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import TypeVar

_R = TypeVar("_R")


def start_thread(thread: threading.Thread) -> None:
    """Raises OSError(ENOMEM) when the system has none to give."""
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(
            errno.ENOMEM,
            "no further thread can be started; memory or the limit of threads is exhausted",
        ) from error


def call_apart(
    function: Callable[[], _R], name: str, *, seconds: float | None = None, too_late: str = ""
) -> _R:
    """What the function returns or raises in a thread of its own.

    OSError(ETIMEDOUT, too_late) when that takes more than `seconds`. The thread is left to
    itself then, and what it returns after all is dropped.
    """
    results: list[_R] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    start_thread(thread)
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise OSError(errno.ETIMEDOUT, too_late)
    return results[0]
