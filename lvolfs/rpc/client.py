"""A blocking JSON-RPC client, and the same calls on a Target of this process."""

import errno
import json
import os
import socket
from types import TracebackType
from typing import Any, Protocol

from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.framing import ObjectStream
from lvolfs.rpc.table import dispatch
from lvolfs.rpc.target import Target
from lvolfs.rpc.tls import Credentials, explain, parse_url

CONNECT_TIMEOUT = 30.0
MAX_REPLY = 32 << 20


class Caller(Protocol):
    """Calls methods by name. Errors are RpcError; a lost daemon is a ConnectionError."""

    def call(self, method: str, **params: Any) -> Any: ...
    def close(self) -> None: ...


class LocalCaller:
    """Runs the methods in this process."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def call(self, method: str, **params: Any) -> Any:
        return dispatch(self._target, method, params or None)

    def close(self) -> None:
        """Nothing to do: the target belongs to whoever opened the stores."""


class Client:
    """A connection to a daemon: path of its control socket, or tls://HOST:PORT, for which
    credentials are needed. Not for use by several threads at once."""

    def __init__(
        self,
        path: str,
        *,
        timeout: float | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.path = path
        self._replies = ObjectStream(MAX_REPLY)
        self._waiting: dict[Any, dict[str, Any]] = {}
        self._last_id = 0
        self._answered = False
        address = parse_url(path)
        self._socket: socket.socket
        if address is not None:
            self._socket = _connect_tls(path, address, credentials, timeout)
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ConnectionError(error.errno, f"control socket {path}: {reason}") from error

    def call(self, method: str, **params: Any) -> Any:
        """The result of a method. Raises RpcError for its errors."""
        return self.result(self.send(method, **params))

    def send(self, method: str, **params: Any) -> int:
        """Sends a request and returns its id, without waiting."""
        self._last_id += 1
        request: dict[str, Any] = {"jsonrpc": "2.0", "id": self._last_id, "method": method}
        if params:
            request["params"] = params
        try:
            self._socket.sendall(json.dumps(request).encode())
        except OSError as error:
            raise self._lost(error) from error
        return self._last_id

    def result(self, request_id: int) -> Any:
        """Waits for the reply to a request."""
        while request_id not in self._waiting:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise self._lost(error) from error
            if not data:
                raise self._lost(None)
            for reply in self._replies.feed(data):
                self._answered = True
                if reply.get("id") is None and "error" in reply:
                    raise RpcError.from_reply(reply["error"])
                self._waiting[reply.get("id")] = reply
        reply = self._waiting.pop(request_id)
        if "error" in reply:
            raise RpcError.from_reply(reply["error"])
        return reply["result"]

    def _lost(self, error: OSError | None) -> ConnectionError:
        import ssl

        if isinstance(error, ssl.SSLError):
            reason = f"it refuses this side: {explain(error)}"
        elif error is None and not self._answered and isinstance(self._socket, ssl.SSLSocket):
            reason = (
                "it closed the connection, as it does when its authority has not signed this "
                "side's certificate"
            )
        else:
            reason = "it closed the connection" if error is None else str(error)
        return ConnectionError(f"the daemon behind {self.path} does not answer: {reason}")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _connect_tls(
    url: str,
    address: tuple[str, int],
    credentials: Credentials | None,
    timeout: float | None,
) -> socket.socket:
    if credentials is None:
        raise ConnectionError(
            errno.EACCES,
            f"{url}: a certificate, its key and the authority's certificate are needed; "
            "give --rpc-tls-cert, --rpc-tls-key and --rpc-tls-ca",
        )
    import ssl

    context = credentials.client_context()
    try:
        plain = socket.create_connection(address, timeout=timeout or CONNECT_TIMEOUT)
    except OSError as error:
        raise ConnectionError(error.errno, f"{url}: {error.strerror or error}") from error
    try:
        secure = context.wrap_socket(plain, server_hostname=address[0])
    except (ssl.SSLError, OSError) as error:
        plain.close()
        reason = explain(error) if isinstance(error, ssl.SSLError) else str(error)
        raise ConnectionError(errno.EPROTO, f"{url}: {reason}") from error
    secure.settimeout(timeout)
    return secure
