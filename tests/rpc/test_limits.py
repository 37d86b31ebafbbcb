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

from lvolfs.rpc import connection, table
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
        # Of what is refused the server need not take the end.
        refusal = () if expected else (BrokenPipeError,)
        with contextlib.suppress(*refusal):
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
    monkeypatch.setattr(connection, "SEND_TIMEOUT", 0.5)
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


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_requests_of_a_mebibyte_wait_their_turn(path: str, gate: threading.Event) -> None:
    """As text, four of them are under way; the others stay in the client's socket."""
    request = b'{"id":%d,"method":"wait","x":"' + b"y" * (MIB - 64) + b'"}'
    before = resident()
    client = RawClient(path)
    client.socket.settimeout(None)
    sender = threading.Thread(
        target=lambda: [client.socket.sendall(request % number) for number in range(60)]
    )
    sender.start()
    time.sleep(1)
    assert sender.is_alive()
    assert resident() - before < 48 * MIB
    assert answers(path)
    gate.set()
    assert {json.loads(client.file.readline())["id"] for _ in range(60)} == set(range(60))
    sender.join(10)
    client.close()


def test_large_replies_wait_for_who_reads_slowly(path: str) -> None:
    before = resident()
    client = RawClient(path)
    client.socket.sendall(b"".join(b'{"id":%d,"method":"large"}' % each for each in range(400)))
    time.sleep(1)
    assert resident() - before < 128 * MIB
    assert answers(path)
    assert {json.loads(client.file.readline())["id"] for _ in range(400)} == set(range(400))
    client.close()


def test_a_client_that_leaves_gives_its_descriptor_back(
    path: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_HANG_UP_POLL", 0.05)
    assert answers(path)
    before = descriptors()
    for _ in range(100):
        client = RawClient(path)
        client.socket.sendall(b'{"id":1,"method":"wait"}')
        client.close()
    # One that has only finished sending gets its reply all the same.
    patient = RawClient(path)
    patient.socket.sendall(b'{"id":2,"method":"wait"}')
    patient.socket.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + 10
    while descriptors() > before + 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors() <= before + 3  # both ends of the patient one, and its file
    gate.set()
    assert json.loads(patient.file.readline()) == {"jsonrpc": "2.0", "id": 2, "result": True}
    patient.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_whoever_asked_before_the_end_is_answered(tmp_path: Path, gate: threading.Event) -> None:
    with serving(str(tmp_path / "s")):
        client = RawClient(str(tmp_path / "s"))
        client.socket.sendall(b'{"id":1,"method":"wait"}')
        time.sleep(0.2)
        threading.Timer(0.1, gate.set).start()
    assert json.loads(client.file.readline())["result"] is True
    assert client.file.readline() == b""
    client.close()
