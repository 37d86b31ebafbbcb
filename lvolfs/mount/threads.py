"""Where whatever may block runs, so that the loop with all other requests goes on."""

import errno
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_Args = TypeVarTuple("_Args")
_R = TypeVar("_R")


async def in_thread(function: Callable[[*_Args], _R], *args: *_Args) -> _R:
    """Raises OSError(ENOMEM) when the system has no thread to give."""
    begun = False

    def run() -> _R:
        nonlocal begun
        begun = True
        return function(*args)

    try:
        return await trio.to_thread.run_sync(run)
    except RuntimeError as error:
        if begun:
            raise
        raise OSError(errno.ENOMEM, f"there is no thread for it: {error}") from error
