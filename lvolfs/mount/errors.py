"""From exceptions to errno: a request may fail, the mount may not."""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

_log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def number_of(error: Exception, what: str) -> int:
    """The errno to answer with; whatever nobody foresaw is logged in full and becomes EIO."""
    if isinstance(error, pyfuse3.FUSEError):
        return error.errno
    if isinstance(error, OSError) and error.errno:
        # The caller sees the number only; the sentence tells what to do about it. ENODATA is
        # what every ls(1) gets for the xattrs that it would like.
        level = logging.DEBUG if error.errno == errno.ENODATA else logging.INFO
        _log.log(level, "%s: %s", what, error.strerror or error)
        return error.errno
    if isinstance(error, MemoryError):
        _log.warning("%s: no memory", what)
        return errno.ENOMEM
    _log.error("%s failed unexpectedly", what, exc_info=error)
    return errno.EIO


def request(
    handler: Callable[_P, Coroutine[Any, Any, _R]],
) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Lets a request handler raise OSError, or fail in ways that it did not foresee."""

    @functools.wraps(handler)
    async def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise pyfuse3.FUSEError(number_of(error, handler.__name__)) from error

    return wrapped
