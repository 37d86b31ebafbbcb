"""With whose rights a path or NBD URI is opened that a client has given.

A daemon may have more rights than who talks to it. Clients of the daemon's own user, and root,
count as the daemon itself. For anybody else who is let in, what a client names is opened by a
thread that has taken on the client's user and groups: the kernel decides, symbolic links and all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from lvolfs._native.credentials import become
from lvolfs.bdev.apart import call_apart

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Client:
    """Somebody else than the daemon's user and root."""

    uid: int
    gid: int
    groups: tuple[int, ...]


_client: ContextVar[Client | None] = ContextVar("client", default=None)


@contextmanager
def acting_for(client: Client | None) -> Iterator[None]:
    """In the block, and in threads and tasks that copy its context, `client` is who asks."""
    token = _client.set(client)
    try:
        yield
    finally:
        _client.reset(token)


def as_client(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Calls it with the rights of who asks: directly, or in a thread that takes them on.

    OSError(EPERM) when this process cannot take on anybody's, ENOMEM without a thread.
    """
    client = _client.get()
    if client is None:
        return function(*args, **kwargs)

    def run() -> _R:
        become(client.uid, client.gid, client.groups)
        return function(*args, **kwargs)

    return call_apart(run, "lvolfs-as-client")


def has_every_right() -> bool:
    """Whether what is opened now is opened by root."""
    return _client.get() is None and os.geteuid() == 0


def require_own(what: str) -> None:
    """For paths that are opened again later, when nobody asks: EPERM for such a client."""
    client = _client.get()
    if client is not None:
        raise OSError(
            errno.EPERM,
            f"{what} would be opened with the rights of uid {os.geteuid()}, which are not those "
            f"of uid {client.uid}; let root or uid {os.geteuid()} name it",
        )
