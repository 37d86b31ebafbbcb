"""JSON-RPC 2.0 on trio: over unix sockets, and over TCP with mutual TLS.

Requests of one connection run side by side and are answered as they finish; the client
matches replies by id. Handlers run in threads, since they take locks and do I/O.
"""

import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from lvolfs.bdev.rights import acting_for
from lvolfs.rpc import table
from lvolfs.rpc.connection import PARTING_TIME, Connection, check_peer
from lvolfs.rpc.errors import INTERNAL_ERROR, RpcError
from lvolfs.rpc.table import dispatch, lookup
from lvolfs.rpc.target import Target
from lvolfs.rpc.tls import explain

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0

_SHORT_THREADS = 16
_LONG_THREADS = 4096
_BACKLOG = 1024
_DESCRIPTORS = 65536


@dataclass(frozen=True)
class TlsListener:
    """An address, and what clients there have to show."""

    host: str
    port: int
    context: ssl.SSLContext


class Server:
    """The methods of one Target behind one or more sockets. Handlers run in `nursery`."""

    def __init__(self, target: Target, nursery: trio.Nursery, group: int | None = None) -> None:
        self.target = target
        self.nursery = nursery
        self.group = group
        self._short = trio.CapacityLimiter(_SHORT_THREADS)
        self._long = trio.CapacityLimiter(_LONG_THREADS)

    def waits(self, method: str, params: Any) -> bool:
        """Whether a call may take long with little to tell at the end."""
        entry = table.METHODS.get(method)
        return entry is not None and entry.waits(params)

    async def run(self, method: str, params: Any) -> Any:
        entry = lookup(method)
        log.debug("rpc %s %s", method, params)
        limiter = self._long if entry.takes_long else self._short
        try:
            # What takes long is left behind at shutdown: what it waits for is cancelled with
            # the store.
            return await trio.to_thread.run_sync(
                dispatch,
                self.target,
                method,
                params,
                limiter=limiter,
                abandon_on_cancel=entry.takes_long,
            )
        except (RuntimeError, MemoryError) as error:
            # Not of the method, whose errors are RpcErrors.
            raise RpcError.from_os_error(
                OSError(errno.ENOMEM, f"there is no thread to run {method} in: {error}"),
                INTERNAL_ERROR,
            ) from error

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serves a client of a unix socket."""
        connection = Connection(self, stream)
        try:
            client = check_peer(stream, self.group)
        except RpcError as error:
            await connection.refuse(error)
            return
        # Tasks and threads that are begun in the block act for this client, too.
        with acting_for(client):
            await connection.serve()

    async def accept_tls(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        """Serves a client of a TCP socket once it has shown a certificate that is accepted."""
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        peer = _name_of(stream)
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                await secure.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            cause = error.__cause__
            reason = explain(cause) if isinstance(cause, ssl.SSLError) else "no handshake"
            log.warning("TLS client %s is refused: %s", peer, reason)
            await trio.aclose_forcefully(stream)
            return
        log.info("TLS client %s: %s", peer, _subject(secure))
        await Connection(self, secure).serve()


class _AcceptErrors(logging.Filter):
    """Of trio's reports that a client cannot be accepted, ten a second, one every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._latest = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        now = time.monotonic()
        due = now - self._latest > 10
        if due:
            self._latest = now
        return due


def _quiet_accept_errors() -> None:
    logger = logging.getLogger("trio.serve_listeners")
    if not any(isinstance(each, _AcceptErrors) for each in logger.filters):
        logger.addFilter(_AcceptErrors())


def _name_of(stream: trio.SocketStream) -> str:
    with contextlib.suppress(OSError):
        host, port = stream.socket.getpeername()[:2]
        return f"{host}:{port}"
    return "(gone)"


def _subject(stream: "trio.SSLStream[trio.SocketStream]") -> str:
    certificate: dict[str, Any] = stream.getpeercert() or {}
    names = [f"{key}={value}" for part in certificate.get("subject", ()) for key, value in part]
    return ", ".join(names) or "a certificate without a subject"


def _bind(path: str, group: int | None) -> socket.socket:
    """A listening socket of mode 0600, or 0660 for a group. One that nobody listens on is
    replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        previous = os.umask(0o177)
        try:
            listener.bind(path)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(
                error.errno or errno.EINVAL, f"control socket {path}: {reason}"
            ) from error
        finally:
            os.umask(previous)
        if group is not None:
            os.chown(path, -1, group)
            Path(path).chmod(0o660)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"{path} exists and is no socket; give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, f"another daemon answers on {path}; give another path")


async def _bind_tls(tls: TlsListener) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(tls.port, host=tls.host, backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OSError(
            error.errno if error.errno and error.errno > 0 else errno.EADDRNOTAVAIL,
            f"cannot listen on {tls.host}:{tls.port}: {reason}",
        ) from error


def _allow_many_clients() -> None:
    """Each client is a descriptor; what a process begins with is often 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _outlast(task_status: trio.TaskStatus[tuple[trio.Nursery, trio.CancelScope]]) -> None:
    """A nursery that is not cancelled from outside, but when its scope is."""
    with trio.CancelScope(shield=True) as scope:
        async with trio.open_nursery() as nursery:
            task_status.started((nursery, scope))
            await trio.sleep_forever()


@contextlib.asynccontextmanager
async def _answering() -> AsyncIterator[trio.Nursery]:
    """The nursery of handlers: whoever has asked before the end is answered, for a moment."""
    async with trio.open_nursery() as outer:
        nursery, scope = await outer.start(_outlast)
        try:
            yield nursery
        finally:
            with trio.move_on_after(PARTING_TIME, shield=True):
                while nursery.child_tasks:
                    await trio.sleep(0.005)
            scope.cancel()


async def serve(
    target: Target,
    paths: list[str],
    *,
    group: int | None = None,
    tls: TlsListener | None = None,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; has started, with the addresses of TCP, when every socket listens.

    On unix sockets processes of other users are let in when they belong to `group`; over TCP
    whoever has a certificate that `tls` accepts. Raises OSError naming the path or address when
    one cannot be bound. The unix sockets are removed at the end.
    """
    _allow_many_clients()
    _quiet_accept_errors()
    listeners: list[trio.SocketListener] = []
    bound: list[str] = []
    try:
        for path in paths:
            listener = _bind(path, group)
            bound.append(path)
            listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(listener)))
        secure = [] if tls is None else await _bind_tls(tls)
        async with _answering() as handlers, trio.open_nursery() as nursery:
            server = Server(target, handlers, group)
            if listeners:
                await nursery.start(trio.serve_listeners, server.accept, listeners)
            if tls is not None:
                context = tls.context

                async def accept(stream: trio.SocketStream) -> None:
                    await server.accept_tls(stream, context)

                await nursery.start(trio.serve_listeners, accept, secure)
            task_status.started([listener.socket.getsockname()[:2] for listener in secure])
            await trio.sleep_forever()
    finally:
        for path in bound:
            with contextlib.suppress(OSError):
                Path(path).unlink()
