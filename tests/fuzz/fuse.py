"""The lane's parser: raw FUSE requests, in place of the kernel's, and whatever comes back.

One end of a socket pair is the lane's /dev/fuse. Requests have wrong lengths, huge sizes,
offsets near 2^63, handles that were never given out, unknown opcodes, and ioctls with odd sizes;
what the lane asks of pyfuse3 and of the Python handler gets hostile answers, too. Every request
of which the kernel would wait for one gets exactly one reply, of a shape that the kernel takes;
the lane goes on; the store is consistent in the end.
"""

import os
import select
import socket
import struct
from pathlib import Path

from lvolfs._native.device import Device
from lvolfs._native.lane import ANSWER, CALL, CALL_ENDED, CALL_GROW, CALL_IOCTL, Lane
from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.fuzz.byte_choices import ByteChoices
from tests.fuzz.limits import ANSWER_SECONDS

CLUSTER = 16 << 10
CASES_PER_STORE = 500
IN = struct.Struct("<IIQQIIII")
OUT = struct.Struct("<IiQ")
CALLED = struct.Struct(CALL)
ANSWERED = struct.Struct(ANSWER)

FORGET, BATCH_FORGET, INTERRUPT = 2, 42, 36
READ, WRITE, FSYNC, FLUSH, IOCTL = 15, 16, 20, 25, 39
FALLOCATE, LSEEK, COPY, COPY_64 = 43, 46, 47, 53
NATIVE = (READ, WRITE, FSYNC, FLUSH, IOCTL, FALLOCATE, LSEEK, COPY, COPY_64)
FORWARDED = (1, 3, 4, 9, 14, 18, 22, 26, 27, 28, 35, 44, 45, 52, 63, 64, 4096, 0xFFFFFFFF)
UNANSWERED = (FORGET, BATCH_FORGET, INTERRUPT)
MIB = 1 << 20
NUMBERS = (
    *(0, 1, 511, 4096, CLUSTER - 1, CLUSTER, 600 * CLUSTER, 600 * CLUSTER - 1, MIB, MIB + 1),
    *(1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1),
)


class Fuse:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "fuse"
        self._flat = folder / "flat"
        self._flat.write_bytes(bytes(100_000))
        self._store: Lvstore | None = None
        self._cases = 0
        self._unique = 0

    # -- a lane without a kernel

    def _fresh(self) -> None:
        store = Lvstore.create(str(self._path), size=8 << 20, cluster_size=CLUSTER, md_ratio=50)
        thin = store.create_volume("thin", 600 * CLUSTER)
        thin.pwrite(b"1" * 20 * CLUSTER, 0)
        thin.snapshot("snap").clone("clone")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
        ours.settimeout(ANSWER_SECONDS)
        self._kernel = ours
        self._lane = Lane(f"/dev/fd/{theirs.fileno()}", "", threads=1)
        theirs.close()
        self._pyfuse3 = socket.socket(fileno=int(self._lane.hand_over().rpartition("/")[2]))
        self._control = socket.socket(fileno=os.dup(self._lane.control_fd))
        self._pyfuse3.setblocking(False)
        self._control.setblocking(False)
        self._device = Device(str(self._flat))
        self._store = store
        closed = self._lane.open_volume(store.get("clone").blob, may_write=True)
        self._lane.close_handle(closed)
        self._handles = [
            self._lane.open_volume(store.get("thin").blob, may_write=True),
            self._lane.open_volume(store.get("clone").blob, may_write=True),
            self._lane.open_volume(store.get("snap").blob, may_write=False),
            self._lane.open_device(self._device, may_write=True),
            *(closed, 0, 3, (1 << 64) - 1, 0x4C56 << 48, (0x4C56 << 48) | 0xFFFF),
        ]
        self._lane.start()

    def close(self) -> None:
        if self._store is None:
            return
        self._kernel.close()
        self._lane.stop()
        self._pyfuse3.close()
        self._control.close()
        self._device.close()
        self._store.close()
        self._store = None
        findings = check_store(str(self._path))
        assert findings == [], findings
        self._path.unlink()

    # -- a case

    def run(self, data: bytes) -> None:
        if self._cases % CASES_PER_STORE == 0:
            self.close()
            self._fresh()
        self._cases += 1
        choices = ByteChoices(data)
        waiting: dict[int, int] = {}
        for _ in range(6):
            if not choices.left:
                break
            self._request(choices, waiting)
            self._others(choices)
        self._settle(choices, waiting)

    def _settle(self, choices: ByteChoices, waiting: dict[int, int]) -> None:
        """Answers what the lane asks until nothing is open; a parked request may ask again."""
        ends = [self._kernel, self._pyfuse3, self._control]
        while waiting:
            ready = select.select(ends, [], [], ANSWER_SECONDS)[0]
            assert ready, f"no reply to opcodes {sorted(waiting.values())}"
            if self._kernel in ready:
                self._reply(waiting)
            self._others(choices)

    def _reply(self, waiting: dict[int, int]) -> None:
        message = self._kernel.recv(2 * MIB)
        assert len(message) >= OUT.size, message
        length, error, unique = OUT.unpack_from(message)
        if unique in {0, 1}:
            return  # a notification, or a reply to nobody, both made up by our pyfuse3
        assert length == len(message)
        assert -4095 <= error <= 0, error
        opcode = waiting.pop(unique, None)
        assert opcode is not None, f"a second reply, or one to nobody: {unique}"
        if error:
            assert len(message) == OUT.size

    def _send(self, opcode: int, body: bytes, waiting: dict[int, int], node: int = 2) -> int:
        self._unique += 2
        head = IN.pack(IN.size + len(body), opcode, self._unique, node, 0, 0, 1, 0)
        waiting[self._unique] = opcode
        self._kernel.send(head + body)
        return self._unique

    def _request(self, choices: ByteChoices, waiting: dict[int, int]) -> None:
        kind = choices.below(16)
        opcode = choices.one_of(NATIVE) if kind < 13 else choices.one_of(FORWARDED)
        body = self._body(opcode, choices)
        if not choices.below(4):
            body = body[: choices.below(len(body) + 1)]
        node = choices.one_of((1, 2, 0, (1 << 64) - 1))
        if kind == 15:
            self._malformed(opcode, body, choices, waiting)
        elif choices.below(64) == 63:
            opcode = choices.one_of(UNANSWERED)
            waiting.pop(self._send(opcode, body, waiting, node))
        else:
            self._send(opcode, body, waiting, node)

    def _malformed(
        self, opcode: int, body: bytes, choices: ByteChoices, waiting: dict[int, int]
    ) -> None:
        """A wrong length, a message shorter than a header (no reply), an id out of range."""
        kind = choices.below(3)
        self._unique += 2
        unique = self._unique
        length = choices.one_of((0, 39, 41, IN.size + len(body) + 1, 1 << 31, (1 << 32) - 1))
        if kind == 0:
            head = IN.pack(length, opcode, unique, 2, 0, 0, 1, 0)
            waiting[unique] = opcode
            self._kernel.send(head + body)
            if length == IN.size + len(body) and opcode in UNANSWERED:
                del waiting[unique]
        elif kind == 1:
            self._kernel.send(bytes(1 + choices.below(IN.size - 1)))
        else:
            unique |= 1 << 48 + choices.below(16)
            waiting[unique] = opcode
            self._kernel.send(IN.pack(IN.size + len(body), opcode, unique, 2, 0, 0, 1, 0) + body)

    def _body(self, opcode: int, choices: ByteChoices) -> bytes:
        number = self._number
        handle = choices.one_of(self._handles)
        if opcode == READ:
            size = min(number(choices), 1 << 32) & 0xFFFFFFFF
            return struct.pack("<QQIIQII", handle, number(choices), size, 0, 0, 0, 0)
        if opcode == WRITE:
            data = choices.take(choices.below(32)) * choices.one_of((1, 1, 200, 2000))
            size = len(data) if choices.below(4) else number(choices) & 0xFFFFFFFF
            flags = choices.below(4)
            sync = choices.one_of((0, 0, 0, os.O_DSYNC))
            return struct.pack("<QQIIQII", handle, number(choices), size, flags, 0, sync, 0) + data
        if opcode in {FSYNC, FLUSH}:
            return struct.pack("<QIIQ", handle, choices.number(4), 0, 0)
        if opcode == FALLOCATE:
            mode = choices.one_of((0, 1, 2, 3, 16, 17, 8, 0xFFFFFFFF))
            return struct.pack("<QQQII", handle, number(choices), number(choices), mode, 0)
        if opcode == LSEEK:
            whence = choices.one_of((3, 4, 0, 2, 5, 0xFFFFFFFF))
            return struct.pack("<QQII", handle, number(choices), whence, 0)
        if opcode in {COPY, COPY_64}:
            target = choices.one_of(self._handles)
            places = (handle, number(choices), 2, target, number(choices), number(choices))
            return struct.pack("<QQQQQQQ", *places, choices.one_of((0, 0, 0, 1)))
        if opcode == IOCTL:
            command = choices.one_of((ord("L") << 8 | choices.number(1), choices.number(4)))
            data = choices.take(choices.below(64))
            given = len(data) if choices.below(2) else number(choices) & 0xFFFFFFFF
            wanted = number(choices) & 0xFFFFFFFF
            return struct.pack("<QIIQII", handle, 0, command, 0, given, wanted) + data
        return choices.take(choices.below(100))

    @staticmethod
    def _number(choices: ByteChoices) -> int:
        if choices.below(2):
            return choices.one_of(NUMBERS)
        return choices.number(choices.one_of((1, 2, 3, 8)))

    # -- pyfuse3 and the handler of ioctls

    def _others(self, choices: ByteChoices) -> None:
        while message := _receive(self._pyfuse3):
            self._answer_forwarded(message, choices)
        while message := _receive(self._control):
            self._answer_call(message, choices)

    def _answer_forwarded(self, message: bytes, choices: ByteChoices) -> None:
        assert len(message) >= IN.size, message
        length, opcode, unique = IN.unpack_from(message)[:3]
        assert length == len(message)
        if opcode in UNANSWERED:
            return
        kind = choices.below(8)
        if kind == 7:
            # Ids that nobody has asked with, and notifications.
            stray = choices.one_of((0, 1 << 63, 0xFF << 48, 64 << 48))
            if stray == 0:
                self._pyfuse3.send(OUT.pack(OUT.size, 2, 0))
            else:
                self._pyfuse3.send(OUT.pack(OUT.size, 0, stray | 1))
        body = b"" if kind < 3 else choices.take(choices.below(200))
        error = -choices.below(200) if not body else 0
        self._pyfuse3.send(OUT.pack(OUT.size + len(body), error, unique) + body)

    def _answer_call(self, message: bytes, choices: ByteChoices) -> None:
        call = CALLED.unpack_from(message)
        unique, kind, _, _, handle, size = call[:6]
        if kind == CALL_ENDED:
            raise AssertionError("the lane's threads have ended")
        error = -choices.below(200)
        data = b""
        if kind == CALL_IOCTL:
            assert len(message) == CALLED.size + call[10]
            data = b"" if error else choices.take(choices.below(300))
        elif kind == CALL_GROW and self._store is not None:
            lvol = self._store.get("thin" if handle == self._handles[0] else "clone")
            try:
                if lvol.size < size <= 2000 * CLUSTER:
                    lvol.resize(size)
                    error = 0
                elif lvol.size >= size:
                    error = 0
                else:
                    error = -27
            except OSError as refused:
                error = -(refused.errno or 5)
        self._control.send(ANSWERED.pack(unique, kind, error, 0, len(data)) + data)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(2 * MIB)
    except BlockingIOError:
        return b""
