"""What one client does, or many, neither harms the daemon nor other clients."""

import contextlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvolfs.rpc import server, table
from lvolfs.rpc.target import Target
from tests.rpc.target_process import RawClient, serving

MIB = 1 << 20


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    monkeypatch.setattr(table, "METHODS", dict(table.METHODS))
    event = threading.Event()

    @table.method("wait", takes_long=True)
    def wait(target: Target) -> bool:
        return event.wait(30)

    @table.method("large")
    def large(target: Target) -> str:
        return "x" * MIB

    yield event
    event.set()


@pytest.fixture
def path(gate: threading.Event, tmp_path: Path) -> Iterator[str]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(str(tmp_path / "s")):
        yield str(tmp_path / "s")
        gate.set()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answers(path: str) -> bool:
    client = RawClient(path)
    try:
        return client.call("framework_wait_init") is True
    finally:
        client.close()


def until_end(peer: socket.socket) -> int:
    """Bytes that still come before the connection ends, with or without a reset."""
    received = 0
    with contextlib.suppress(ConnectionError):
        while data := peer.recv(MIB):
            received += len(data)
    return received


def test_a_request_of_a_mebibyte_and_one_over_it(path: str) -> None:
    def request(size: int) -> bytes:
        start = b'{"id":1,"method":"framework_wait_init","x":"'
        return start + b"y" * (size - len(start) - 2) + b'"}'

    for size, expected in ((MIB, {"jsonrpc": "2.0", "id": 1, "result": True}), (MIB + 70000, None)):
        client = RawClient(path)
        client.socket.sendall(request(size))
        reply = json.loads(client.file.readline())
        if expected is not None:
            assert reply == expected
        else:
            assert (reply["id"], reply["error"]["code"]) == (None, -32700)
            assert until_end(client.socket) == 0
        client.close()
    assert answers(path)


def test_a_thousand_requests_of_one_connection_wait_while_others_are_answered(
    path: str, gate: threading.Event
) -> None:
    client = RawClient(path)
    for number in range(1000):
        client.socket.sendall(b'{"id":%d,"method":"wait"}' % number)
    client.socket.sendall(b'{"id":"quick","method":"framework_wait_init"}')
    assert json.loads(client.file.readline())["id"] == "quick"
    assert answers(path)
    gate.set()
    assert {json.loads(client.file.readline())["id"] for _ in range(1000)} == set(range(1000))
    client.close()


def test_a_thousand_idle_clients(path: str) -> None:
    idle = []
    try:
        for _ in range(1000):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(path)
            idle.append(peer)
        assert answers(path)
    finally:
        for peer in idle:
            peer.close()
    assert answers(path)


def test_a_client_that_never_reads_is_disconnected(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SEND_TIMEOUT", 0.5)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    deaf = socket.socket(socket.AF_UNIX)
    deaf.settimeout(10)
    deaf.connect(path)
    for number in range(20):
        deaf.sendall(b'{"id":%d,"method":"large"}' % number)
    assert answers(path)
    time.sleep(0.8)
    with deaf:
        received = until_end(deaf)
    assert received < 20 * MIB
    assert answers(path)
    after = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert after - before < 128 * MIB
