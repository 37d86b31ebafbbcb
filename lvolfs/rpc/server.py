"""JSON-RPC 2.0 over a unix socket, on trio.

Requests of one connection run side by side and are answered as they finish; the client
matches replies by id. Handlers run in threads, since they take locks and do I/O.
"""

import contextlib
import errno
import json
import logging
import os
import resource
import socket
import stat
import struct
from array import array
from pathlib import Path
from typing import Any

import trio

from lvolfs.rpc.errors import INVALID_REQUEST, PARSE_ERROR, RpcError
from lvolfs.rpc.framing import FramingError, ObjectStream
from lvolfs.rpc.table import dispatch, lookup
from lvolfs.rpc.target import Target

log = logging.getLogger(__name__)

RECEIVE_SIZE = 65536
MAX_OUTSTANDING = 1024
"""Requests of one connection under way at a time; the Go client keeps up to so many."""

SEND_TIMEOUT = 60.0
"""Seconds for which a client may leave a reply unread; then it is disconnected."""

_SO_PEERGROUPS = 59
_SHORT_THREADS = 16
_LONG_THREADS = 4096
_BACKLOG = 1024
_DESCRIPTORS = 65536


def _encode(reply: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(reply, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # A lone surrogate, from the client's own id or a name that is not UTF-8: JSON can
        # say it with an escape, UTF-8 cannot.
        text = json.dumps(reply, separators=(",", ":")).encode()
    return text + b"\n"


def _groups_of_peer(peer: trio.socket.SocketType, gid: int) -> set[int]:
    """The primary and the supplementary groups of the process that connected; of one with
    more than 256 of them only the primary one."""
    groups = array("I")
    # Python asks for at most 1024 bytes of an option.
    with contextlib.suppress(OSError):
        groups.frombytes(peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024))
    return {gid, *groups}


def _check_peer(stream: trio.SocketStream, group: int | None) -> None:
    credentials = stream.socket.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid, uid, gid = struct.unpack("3i", credentials)
    if uid in (0, os.geteuid()):
        return
    if group is not None and group in _groups_of_peer(stream.socket, gid):
        return
    raise RpcError(
        -errno.EPERM,
        os.strerror(errno.EPERM),
        detail=f"process {pid} of uid {uid} may not control a daemon of uid {os.geteuid()}",
        number=errno.EPERM,
    )


class _Connection:
    def __init__(self, server: "Server", stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._sending = trio.Lock()
        self._slots = trio.Semaphore(MAX_OUTSTANDING)

    async def serve(self) -> None:
        async with self._stream:
            try:
                _check_peer(self._stream, self._server.group)
            except RpcError as error:
                await self._send_error(None, error)
                return
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._receive()
            # What is still running is answered before the socket closes, if anybody listens.
            for _ in range(MAX_OUTSTANDING):
                await self._slots.acquire()

    async def _receive(self) -> None:
        requests = ObjectStream()
        while data := await self._stream.receive_some(RECEIVE_SIZE):
            broken: FramingError | None = None
            try:
                requests.feed(data)
            except FramingError as error:
                broken = error
            for request in requests.completed:
                await self._slots.acquire()
                self._server.nursery.start_soon(self._handle, request)
            if broken is not None:
                await self._send_error(
                    None, RpcError(PARSE_ERROR, "Parse error", detail=str(broken))
                )
                return

    async def _handle(self, request: Any) -> None:
        try:
            await self._answer(request)
        finally:
            self._slots.release()

    async def _answer(self, request: Any) -> None:
        request_id = None
        notification = True
        try:
            method, params, request_id = _parse(request)
            notification = request_id is None
            result = await self._server.run(method, params)
        except RpcError as error:
            await self._send_error(request_id, error)
            return
        if not notification:
            await self._send({"jsonrpc": "2.0", "id": request_id, "result": result})

    async def _send_error(self, request_id: Any, error: RpcError) -> None:
        await self._send({"jsonrpc": "2.0", "id": request_id, "error": error.reply()})

    async def _send(self, reply: dict[str, Any]) -> None:
        async with self._sending:
            # A client that left does not want the reply.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                with trio.move_on_after(SEND_TIMEOUT) as patience:
                    await self._stream.send_all(_encode(reply))
                if patience.cancelled_caught:
                    log.warning("a client has not read for %g s: disconnected", SEND_TIMEOUT)
                    await trio.aclose_forcefully(self._stream)


def _parse(request: Any) -> tuple[str, Any, Any]:
    """(method, params, id) of a request object."""
    if not isinstance(request, dict):
        raise RpcError(INVALID_REQUEST, "Invalid request", detail="a request must be an object")
    method = request.get("method")
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "Invalid request", detail="method must be a string")
    if request.get("jsonrpc", "2.0") != "2.0":
        raise RpcError(INVALID_REQUEST, "Invalid request", detail='jsonrpc must be "2.0"')
    params = request.get("params")
    if params is not None and not isinstance(params, dict | list):
        raise RpcError(
            INVALID_REQUEST, "Invalid request", detail="params must be an object or an array"
        )
    return method, params, request.get("id")


class Server:
    """The methods of one Target behind one or more sockets."""

    def __init__(self, target: Target, nursery: trio.Nursery, group: int | None = None) -> None:
        self.target = target
        self.nursery = nursery
        self.group = group
        self._short = trio.CapacityLimiter(_SHORT_THREADS)
        self._long = trio.CapacityLimiter(_LONG_THREADS)

    async def run(self, method: str, params: Any) -> Any:
        entry = lookup(method)
        log.debug("rpc %s %s", method, params)
        if entry.takes_long:
            # Left behind at shutdown: what it waits for is cancelled with the store.
            return await trio.to_thread.run_sync(
                dispatch,
                self.target,
                method,
                params,
                limiter=self._long,
                abandon_on_cancel=True,
            )
        return await trio.to_thread.run_sync(
            dispatch, self.target, method, params, limiter=self._short
        )

    async def accept(self, stream: trio.SocketStream) -> None:
        await _Connection(self, stream).serve()


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


def _allow_many_clients() -> None:
    """Each client is a descriptor; what a process begins with is often 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(
    target: Target,
    paths: list[str],
    *,
    group: int | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; has started when every socket listens.

    Processes of other users are let in when they belong to `group`. Raises OSError naming the
    path when one cannot be bound. The sockets are removed at the end.
    """
    _allow_many_clients()
    listeners: list[trio.SocketListener] = []
    bound: list[str] = []
    try:
        for path in paths:
            listener = _bind(path, group)
            bound.append(path)
            listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(listener)))
        async with trio.open_nursery() as nursery:
            server = Server(target, nursery, group)
            await nursery.start(trio.serve_listeners, server.accept, listeners)
            task_status.started()
    finally:
        for path in bound:
            with contextlib.suppress(OSError):
                Path(path).unlink()
