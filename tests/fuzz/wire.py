"""The control socket: bytes cut anyhow, and every method with parameters of all kinds.

A server on a real store answers. It has to stay alive, every answer has to be one line of JSON,
and none may say that something failed unexpectedly.
"""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import trio

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import methods, table
from lvolfs.rpc.framing import FramingError, ObjectStream
from lvolfs.rpc.server import serve
from lvolfs.rpc.target import Target
from tests.fuzz.byte_choices import ByteChoices
from tests.fuzz.limits import ANSWER_SECONDS

CLUSTER = 16 << 10
CASES_PER_STORE = 300
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**400, 0.5, 1e308),
    *(
        "",
        "lvs0",
        "thin",
        "lvs0/thin",
        "lvs0/snap",
        "lvs0/clone",
        "lvs0/",
        "/thin",
        "new",
        "x" * 64,
    ),
    *("\ud800", "ä€😀", "a\0b", "xxh3", "crc64", "nbd://", "nbd+unix:///x?socket=/nonexistent/s"),
    *([], {}, [0], [0, 1, 2], [1 << 64], [[0, 3]], [[3, 0]], [{"a": 1}], {"a": {}}, "AAAA", "=="),
)
# They wait, by design, as long as a job runs or the caller says, or end this process.
WAITING = {"lvolfs_wait_job", "bdev_get_bdevs", "spdk_kill_instance"}
# Methods whose parameters name files of the host, with values that name none.
NOTHING = "nonexistent-directory/file"


class Wire:
    def __init__(self, folder: Path) -> None:
        assert methods.__all__
        self._store_path = folder / "wire"
        self._socket = str(folder / "rpc.sock")
        self._cases = 0
        self._store: Lvstore | None = None
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._failure: BaseException | None = None

    def close(self) -> None:
        if self._thread is None or self._store is None or self._token is None:
            return
        trio.from_thread.run_sync(self._scope.cancel, trio_token=self._token)
        self._thread.join(ANSWER_SECONDS)
        assert not self._thread.is_alive(), "the server does not end"
        if self._failure is not None:
            raise AssertionError("the server died") from self._failure
        # A request may have deleted the store, which leaves nothing that could be checked.
        deleted = self._store.closed
        self._store.close()
        if not deleted:
            findings = check_store(str(self._store_path))
            assert findings == [], findings
        self._store_path.unlink()
        self._store = None

    def _fresh(self) -> None:
        store = Lvstore.create(
            str(self._store_path), size=8 << 20, cluster_size=CLUSTER, md_ratio=50
        )
        thin = store.create_volume("thin", 20 * CLUSTER)
        thin.pwrite(b"1" * 4 * CLUSTER, 0)
        thin.snapshot("snap").clone("clone")
        self._store = store
        self._scope = trio.CancelScope()
        started = threading.Event()

        async def run() -> None:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(serve, Target([store]), [self._socket])
                    self._token = trio.lowlevel.current_trio_token()
                    started.set()

        def thread() -> None:
            try:
                trio.run(run)
            except BaseException as error:
                self._failure = error
            started.set()

        # Does not hold up the end of a process that has found something.
        self._thread = threading.Thread(target=thread, daemon=True)
        self._thread.start()
        assert started.wait(ANSWER_SECONDS)

    def run(self, data: bytes) -> None:
        if self._cases % CASES_PER_STORE == 0:
            self.close()
            self._fresh()
        self._cases += 1
        choices = ByteChoices(data)
        stream = b""
        for _ in range(6):
            if not choices.left:
                break
            stream += _request(choices) if choices.below(3) else choices.rest(64)
        _frame(stream, choices)
        self._talk(stream, 1 + choices.below(64))

    def _talk(self, stream: bytes, piece: int) -> None:
        """Sends, in pieces, and reads until the server hangs up."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(ANSWER_SECONDS)
            peer.connect(self._socket)
            try:
                for start in range(0, len(stream), max(piece, len(stream) // 8)):
                    peer.sendall(stream[start : start + max(piece, len(stream) // 8)])
                peer.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                # After a stream that cannot be cut the server hangs up.
                pass
            received = bytearray()
            try:
                while chunk := peer.recv(65536):
                    received += chunk
            except ConnectionResetError:
                pass
        if self._failure is not None:
            raise AssertionError("the server died") from self._failure
        for line in received.splitlines():
            reply = json.loads(line)
            detail = str(reply.get("error", {}).get("data", ""))
            assert "failed unexpectedly" not in detail, detail


def _value(choices: ByteChoices) -> Any:
    return choices.one_of(VALUES)


def _request(choices: ByteChoices) -> bytes:
    """One request, mostly of a method that is there with names of parameters that it has."""
    entry = table.METHODS[choices.one_of(sorted(set(table.METHODS) - WAITING))]
    params: dict[str, Any] = {}
    for name in entry.parameters.model_fields:
        if choices.below(4):
            value = _value(choices)
            if isinstance(value, str) and value.startswith("/"):
                value = NOTHING
            params[name] = value
    request: dict[str, Any] = {"jsonrpc": "2.0", "id": _value(choices), "method": entry.name}
    request["params"] = params if choices.below(8) else _value(choices)
    if not choices.below(8):
        request[choices.one_of(["jsonrpc", "id", "method", "params", "more"])] = _value(choices)
    raw = json.dumps(request, allow_nan=False).encode()
    if not choices.below(8):
        place = choices.below(len(raw))
        raw = raw[:place] + choices.take(2) + raw[place:]
    return raw


def _frame(stream: bytes, choices: ByteChoices) -> None:
    """However the bytes are cut, the same values come out."""
    results = []
    for size in (len(stream) or 1, 1 + choices.below(16)):
        cutter = ObjectStream()
        found: list[Any] = []
        broken = False
        for start in range(0, len(stream), size):
            try:
                found += cutter.feed(stream[start : start + size])
            except FramingError:
                found += cutter.completed
                broken = True
                break
        results.append((repr(found), broken))
    assert results[0] == results[1], results
