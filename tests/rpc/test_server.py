"""The wire: framing, pipelining, errors, peers. Raw sockets, as foreign clients use it."""

import errno
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from lvolfs.rpc import table
from lvolfs.rpc.client import Client
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.server import Server, serve
from lvolfs.rpc.table import dispatch
from lvolfs.rpc.target import Target
from tests.other_users import NOBODY, within_reach


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Methods beside the real ones: one echoes, one waits for the gate, two fail."""
    monkeypatch.setattr(table, "METHODS", dict(table.METHODS))
    event = threading.Event()

    @table.method("echo")
    def echo(target: Target, *, text: str, times: table.U32 = 1) -> list[str]:
        return [text] * times

    @table.method("wait", takes_long=True)
    def wait(target: Target) -> bool:
        return event.wait(10)

    @table.method("broken")
    def broken(target: Target) -> bool:
        raise ZeroDivisionError("a bug")

    @table.method("greedy")
    def greedy(target: Target) -> bool:
        raise MemoryError

    yield event
    event.set()


@pytest.fixture
async def path(gate: threading.Event, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[str]:
    socket_path = str(tmp_path / "rpc.sock")
    await nursery.start(serve, Target([]), [socket_path])
    yield socket_path
    nursery.cancel_scope.cancel()


class Peer:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes | dict[str, Any]) -> None:
        self.socket.sendall(data if isinstance(data, bytes) else json.dumps(data).encode())

    def reply(self) -> Any:
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, data: bytes | dict[str, Any]) -> Any:
        self.send(data)
        return self.reply()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


async def in_thread(path: str, steps: Any) -> Any:
    def run() -> Any:
        peer = Peer(path)
        try:
            return steps(peer)
        finally:
            peer.close()

    return await trio.to_thread.run_sync(run)


@pytest.mark.parametrize("request_id", ["s", 7, 1.5, 2**53, "\ud800"])
async def test_reply_echoes_the_id(path: str, request_id: Any) -> None:
    request = {"jsonrpc": "2.0", "id": request_id, "method": "echo", "params": {"text": "a"}}
    reply = await in_thread(path, lambda peer: peer.ask(request))
    assert reply == {"jsonrpc": "2.0", "id": request_id, "result": ["a"]}


async def test_replies_come_as_ready(path: str, gate: threading.Event) -> None:
    def steps(peer: Peer) -> list[Any]:
        peer.send(
            b'{"id":1,"method":"wait"}{"id":2,"method":"echo","params":{"text":"x"}}'
            b'{"id":3,"method":"nope"}'
        )
        early = sorted([peer.reply()["id"], peer.reply()["id"]])
        gate.set()
        return [early, peer.reply()]

    early, last = await in_thread(path, steps)
    assert early == [2, 3]
    assert last == {"jsonrpc": "2.0", "id": 1, "result": True}


async def test_notifications_are_not_answered(path: str) -> None:
    def steps(peer: Peer) -> Any:
        peer.send({"method": "echo", "params": {"text": "quiet"}})
        peer.send({"method": "echo", "id": None, "params": {"text": "quiet"}})
        return peer.ask({"method": "echo", "id": 1, "params": {"text": "loud"}})

    assert (await in_thread(path, steps))["result"] == ["loud"]


@pytest.mark.parametrize(
    ("request_", "code", "message", "request_id"),
    [
        ({"id": 1, "method": "nope"}, -32601, "Method not found", 1),
        ({"id": 1, "method": 5}, -32600, "Invalid request", None),
        ({"id": 1, "jsonrpc": "1.0", "method": "echo"}, -32600, "Invalid request", None),
        ({"id": 1, "method": "echo", "params": "x"}, -32600, "Invalid request", None),
        ({"id": 1, "method": "echo"}, -32603, "spdk_json_decode_object failed", 1),
        (
            {"id": 1, "method": "echo", "params": {"text": 5}},
            -32603,
            "spdk_json_decode_object failed",
            1,
        ),
        (
            {"id": 1, "method": "echo", "params": {"text": "a", "bogus": 1}},
            -32603,
            "spdk_json_decode_object failed",
            1,
        ),
        (
            {"id": 1, "method": "echo", "params": {"text": "a", "times": -1}},
            -32603,
            "spdk_json_decode_object failed",
            1,
        ),
        (
            {"id": 1, "method": "echo", "params": {"text": "a", "times": True}},
            -32603,
            "spdk_json_decode_object failed",
            1,
        ),
        ({"id": 1, "method": "echo", "params": [1]}, -32603, "spdk_json_decode_object failed", 1),
        (
            {"id": 1, "method": "wait", "params": {"x": 1}},
            -32602,
            "wait requires no parameters",
            1,
        ),
    ],
)
async def test_refused_requests(
    path: str, request_: dict[str, Any], code: int, message: str, request_id: Any
) -> None:
    def steps(peer: Peer) -> list[Any]:
        first = peer.ask(request_)
        return [first, peer.ask({"id": 2, "method": "echo", "params": {"text": "alive"}})]

    refused, after = await in_thread(path, steps)
    assert refused["error"]["code"] == code
    assert refused["error"]["message"] == message
    assert refused["id"] == request_id
    assert after["result"] == ["alive"]


async def test_batches_are_refused_as_by_spdk_up_to_25(path: str) -> None:
    reply = await in_thread(path, lambda peer: peer.ask(b'[{"id":1,"method":"echo"}]'))
    assert reply["id"] is None
    assert reply["error"]["code"] == -32600


async def test_a_bug_in_a_method_is_an_error_reply(path: str) -> None:
    reply = await in_thread(path, lambda peer: peer.ask({"id": 1, "method": "broken"}))
    assert reply["error"]["code"] == -32603
    assert "ZeroDivisionError" in reply["error"]["data"]["detail"]


async def test_a_method_without_memory(path: str) -> None:
    reply = await in_thread(path, lambda peer: peer.ask({"id": 1, "method": "greedy"}))
    assert reply["error"]["data"]["errno"] == errno.ENOMEM
    assert "unexpected" not in reply["error"]["data"]["detail"]


async def test_no_thread_for_a_request(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused; the daemon and its mounts stay."""
    echo = {"id": 1, "method": "echo", "params": {"text": "a"}}
    run_sync = trio.to_thread.run_sync

    async def fail(function: Any, *args: Any, **kwargs: Any) -> Any:
        if function is dispatch:
            raise RuntimeError("can't start new thread")
        return await run_sync(function, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", fail)
        reply = await in_thread(path, lambda peer: peer.ask(echo))
    assert reply["error"]["data"]["errno"] == errno.ENOMEM
    assert "no thread to run echo" in reply["error"]["data"]["detail"]
    assert (await in_thread(path, lambda peer: peer.ask(echo)))["result"] == ["a"]


async def test_a_bug_in_answering_costs_one_client(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = {"id": 1, "method": "echo", "params": {"text": "a"}}

    async def fail(*_args: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Server, "run", fail)
        assert await in_thread(path, lambda peer: peer.ask(echo)) is None
    assert (await in_thread(path, lambda peer: peer.ask(echo)))["result"] == ["a"]


async def test_a_parse_error_closes_the_connection_after_earlier_replies(path: str) -> None:
    def steps(peer: Peer) -> list[Any]:
        peer.send(b'{"id":1,"method":"echo","params":{"text":"a"}}{"id":2,,}')
        return [peer.reply(), peer.reply(), peer.reply()]

    replies = await in_thread(path, steps)
    assert replies[2] is None
    by_id = {reply["id"]: reply for reply in replies[:2]}
    assert by_id[1]["result"] == ["a"]
    assert by_id[None]["error"]["code"] == -32700
    assert by_id[None]["error"]["message"] == "Parse error"


async def test_many_clients_at_once(path: str) -> None:
    results: list[int] = []

    async def one(number: int) -> None:
        def steps(peer: Peer) -> int:
            for request_id in range(20):
                peer.send({"id": request_id, "method": "echo", "params": {"text": f"{number}"}})
            replies = [peer.reply() for _ in range(20)]
            assert all(reply["result"] == [str(number)] for reply in replies)
            return len({reply["id"] for reply in replies})

        results.append(await in_thread(path, steps))

    async with trio.open_nursery() as clients:
        for number in range(12):
            clients.start_soon(one, number)
    assert results == [20] * 12


async def test_socket_is_private_and_goes_away(gate: threading.Event, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Target([]), [str(path)])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        nursery.cancel_scope.cancel()
    assert not path.exists()


@pytest.mark.needs_root
async def test_other_users_are_refused(path: str) -> None:
    os.chmod(path, 0o666)  # noqa: PTH101

    def steps() -> bytes:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setresuid(NOBODY, NOBODY, NOBODY)
                peer = socket.socket(socket.AF_UNIX)
                peer.settimeout(5)
                peer.connect(path)
                os.write(write_end, peer.recv(4096))
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        return answer

    with within_reach(Path(path)):
        reply = json.loads(await trio.to_thread.run_sync(steps))
    assert reply["error"]["code"] == -1
    assert f"uid {NOBODY} may not control" in reply["error"]["data"]["detail"]


async def test_stale_socket_is_replaced_and_a_live_one_is_not(
    gate: threading.Event, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Target([]), [path])
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="another daemon answers")):
            async with trio.open_nursery() as second:
                await second.start(serve, Target([]), [path])
        assert Path(path).exists()
        nursery.cancel_scope.cancel()


async def test_a_file_in_the_way_is_left_alone(gate: threading.Event, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(OSError, match="is no socket"):
        await serve(Target([]), [str(path)])
    assert path.read_text() == "precious"


async def test_client_raises_errors_and_reports_a_lost_daemon(
    gate: threading.Event, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")

    def steps() -> Client:
        client = Client(path, timeout=10)
        assert client.call("echo", text="ä\N{SNOWMAN}", times=2) == ["ä\N{SNOWMAN}"] * 2
        with pytest.raises(RpcError) as caught:
            client.call("echo", text=1)
        assert caught.value.code == -32603
        assert "text" in str(caught.value)
        return client

    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Target([]), [path])
        client = await trio.to_thread.run_sync(steps)
        nursery.cancel_scope.cancel()
    with client, pytest.raises(ConnectionError, match="does not answer"):
        client.call("echo", text="x")
    with pytest.raises(ConnectionError, match="No such file"):
        Client(path)
