"""A served target in a thread of this process, and raw clients of it."""

import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from lvolfs.rpc import methods
from lvolfs.rpc.server import serve
from lvolfs.rpc.target import Target

assert methods  # fills the method table


class RawClient:
    """Sends requests as they are given and returns whole replies."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.last_id = 0

    def exchange(self, request: Any) -> Any:
        self.socket.sendall(json.dumps(request).encode())
        return json.loads(self.file.readline())

    def call(self, method: str, **params: Any) -> Any:
        """The reply without its envelope: the result, or {"code", "message"}."""
        self.last_id += 1
        request: dict[str, Any] = {"jsonrpc": "2.0", "id": self.last_id, "method": method}
        if params:
            request["params"] = params
        reply = self.exchange(request)
        assert reply["id"] == self.last_id
        if "error" in reply:
            return {key: reply["error"][key] for key in ("code", "message")}
        return reply["result"]

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def end_daemon(path: str) -> None:
    """Ends the process behind a socket, and waits until its stores are closed."""
    client = RawClient(path)
    try:
        credentials = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        process = os.pidfd_open(struct.unpack("3i", credentials)[0])
        assert client.call("spdk_kill_instance", sig_name="SIGTERM") is True
    finally:
        client.close()
    try:
        assert select.select([process], [], [], 30)[0], "the daemon does not end"
    finally:
        os.close(process)


@contextmanager
def serving(path: str) -> Iterator[Target]:
    """An empty target behind a socket; its stores are closed at the end."""
    target = Target([])
    started = threading.Event()
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, target, [path])
                started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert started.wait(10)
        yield target
    finally:
        tokens[0].run_sync_soon(scope.cancel)
        thread.join(20)
        target.close()
        assert not thread.is_alive()
