"""One client: its requests run side by side, within bounds, and are answered as they finish."""

import contextlib
import errno
import json
import logging
import os
import select
import socket
import struct
from array import array
from typing import TYPE_CHECKING, Any

import trio

from lvolfs.bdev.rights import Client
from lvolfs.rpc.errors import INVALID_REQUEST, PARSE_ERROR, RpcError
from lvolfs.rpc.framing import FramingError, ObjectStream

if TYPE_CHECKING:
    from lvolfs.rpc.server import Server

log = logging.getLogger(__name__)

RECEIVE_SIZE = 65536
MAX_OUTSTANDING = 1024
"""Requests of one connection under way at a time; the Go client keeps up to so many."""

MAX_REQUEST_BYTES = 4 << 20
"""What the requests under way may have been in all, as text. One is always let through."""

MAX_UNREAD_BYTES = 16 << 20
"""Replies that the client has still to read; over it, its requests wait to be run."""

TURNS = 16
"""Requests of one connection that are run at a time, those left out that only wait."""

SEND_TIMEOUT = 60.0
"""Seconds for which a client may leave a reply unread; then it is disconnected."""

PARTING_TIME = 0.5
"""Seconds that requests under way have to be answered when the server ends."""

_HANG_UP_POLL = 1.0
_SO_PEERGROUPS = 59


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


def check_peer(stream: trio.SocketStream, group: int | None) -> Client | None:
    """The process at the other end of a unix socket, None for root's or the daemon's own user's.
    Raises RpcError unless it may be here."""
    credentials = stream.socket.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid, uid, gid = struct.unpack("3i", credentials)
    if uid in (0, os.geteuid()):
        return None
    groups = _groups_of_peer(stream.socket, gid)
    if group is not None and group in groups:
        return Client(uid, gid, tuple(sorted(groups)))
    raise RpcError(
        -errno.EPERM,
        os.strerror(errno.EPERM),
        detail=f"process {pid} of uid {uid} may not control a daemon of uid {os.geteuid()}",
        number=errno.EPERM,
    )


def _hung_up(stream: trio.abc.Stream) -> bool:
    """Whether nobody can read the replies any more. Who has only finished sending still can;
    of that only a unix socket knows."""
    if not isinstance(stream, trio.SocketStream) or stream.socket.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(stream.socket.fileno(), 0)
    return bool(poll.poll(0))


class Connection:
    """Serves one stream. Handlers belong to the server: they outlive a client that leaves."""

    def __init__(self, server: "Server", stream: trio.abc.Stream) -> None:
        self._server = server
        self._stream = stream
        self._sending = trio.Lock()
        self._turns = trio.Semaphore(TURNS)
        self._outstanding = 0
        self._request_bytes = 0
        self._unread_bytes = 0
        self._changed = trio.Event()

    async def serve(self) -> None:
        try:
            await self._serve()
        except Exception:
            # A bug; it costs this client its connection, and nobody else anything.
            log.exception("a connection failed unexpectedly")

    async def _serve(self) -> None:
        async with self._stream:
            try:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._receive()
                # What is still running is answered before the socket closes, if anybody listens.
                while self._outstanding and not _hung_up(self._stream):
                    with trio.move_on_after(_HANG_UP_POLL):
                        await self._changed.wait()
            except trio.Cancelled:
                # The server ends, perhaps by one of these very requests.
                with trio.move_on_after(PARTING_TIME, shield=True):
                    while self._outstanding:
                        await self._changed.wait()
                raise

    async def refuse(self, error: RpcError) -> None:
        async with self._stream:
            await self._send(self._account(_refusal(None, error)))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _receive(self) -> None:
        requests = ObjectStream()
        while data := await self._stream.receive_some(RECEIVE_SIZE):
            broken: FramingError | None = None
            try:
                requests.feed(bytes(data))
            except FramingError as problem:
                broken = problem
            for request, size in zip(requests.completed, requests.sizes, strict=True):
                await self._begin(request, size)
            requests.completed.clear()
            if broken is not None:
                error = RpcError(PARSE_ERROR, "Parse error", detail=str(broken))
                await self._send(self._account(_refusal(None, error)))
                return

    async def _begin(self, request: Any, size: int) -> None:
        """Waits for room and starts the request."""
        while self._outstanding >= MAX_OUTSTANDING or (
            self._outstanding and self._request_bytes + size > MAX_REQUEST_BYTES
        ):
            await self._changed.wait()
        self._outstanding += 1
        self._request_bytes += size
        self._server.nursery.start_soon(self._handle, request, size)

    async def _handle(self, request: Any, size: int) -> None:
        try:
            await self._answer(request)
        except Exception:
            # The same here: what leaves the server's nursery ends the daemon.
            log.exception("a request failed unexpectedly")
            await trio.aclose_forcefully(self._stream)
        finally:
            self._outstanding -= 1
            self._request_bytes -= size
            self._tell()

    async def _answer(self, request: Any) -> None:
        try:
            method, params, request_id = parse_request(request)
        except RpcError as error:
            await self._send(self._account(_refusal(None, error)))
            return
        if self._server.waits(method, params):
            reply = self._account(await self._run(method, params, request_id))
        else:
            async with self._turns:
                # What is told is in memory until it is read: not more of it than some.
                while self._unread_bytes > MAX_UNREAD_BYTES:
                    await self._changed.wait()
                reply = self._account(await self._run(method, params, request_id))
        await self._send(reply)

    async def _run(self, method: str, params: Any, request_id: Any) -> dict[str, Any] | None:
        """The reply; None for a notification that has not failed."""
        try:
            result = await self._server.run(method, params)
        except RpcError as error:
            return _refusal(request_id, error)
        if request_id is None:
            return None
        return {"jsonrpc": "2.0", "id": request_id, "result": result}

    def _account(self, reply: dict[str, Any] | None) -> bytes:
        """The reply as text, which counts as unread from now on."""
        text = b"" if reply is None else _encode(reply)
        self._unread_bytes += len(text)
        return text

    async def _send(self, text: bytes) -> None:
        try:
            if text:
                await self._write(text)
        finally:
            self._unread_bytes -= len(text)
            self._tell()

    async def _write(self, text: bytes) -> None:
        async with self._sending:
            # A client that left does not want the reply.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                with trio.move_on_after(SEND_TIMEOUT) as patience:
                    await self._stream.send_all(text)
                if patience.cancelled_caught:
                    log.warning("a client has not read for %g s: disconnected", SEND_TIMEOUT)
                    await trio.aclose_forcefully(self._stream)


def _refusal(request_id: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": error.reply()}


def parse_request(request: Any) -> tuple[str, Any, Any]:
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
