"""The lane's questions to Python: ioctls, and volumes that a write must make larger."""

import errno
import logging
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lvolfs._native.lane import ANSWER, CALL, CALL_ENDED, CALL_GROW, CALL_IOCTL
from lvolfs.mount import ioctl_calls
from lvolfs.mount.errors import number_of
from lvolfs.mount.threads import in_thread

if TYPE_CHECKING:
    from lvolfs._native.lane import Lane
    from lvolfs.mount.tree import Tree

_log = logging.getLogger(__name__)

_CALL = struct.Struct(CALL)
_ANSWER = struct.Struct(ANSWER)
_MAX_MESSAGE = 1 << 15


@dataclass(frozen=True)
class Call:
    """One message of the lane; see CALL."""

    id: int
    kind: int
    cmd: int
    inode: int
    fh: int
    size: int
    uid: int
    gid: int
    pid: int
    flags: int
    in_size: int
    out_size: int
    data: bytes

    @classmethod
    def parse(cls, message: bytes) -> "Call":
        members = (*_CALL.unpack_from(message), message[_CALL.size :])
        return cls(**dict(zip(cls.__dataclass_fields__, members, strict=True)))


class ControlChannel:
    """Serves the calls of one lane until its connection has ended."""

    def __init__(self, lane: "Lane", tree: "Tree") -> None:
        self._tree = tree
        # A descriptor of its own: the lane closes the other one when it stops.
        self._socket = trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(lane.control_fd)))
        self._sending = trio.Lock()

    async def serve(self) -> None:
        """Returns when the kernel has closed the connection: the mount is gone."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    message = await self._socket.recv(_MAX_MESSAGE)
                    if not message:
                        break
                    call = Call.parse(message)
                    if call.kind == CALL_ENDED:
                        break
                    nursery.start_soon(self._answer, call)
        finally:
            self._socket.close()

    async def _answer(self, call: Call) -> None:
        error = 0
        result = b""
        try:
            if call.kind == CALL_GROW:
                await in_thread(self._tree.grow, call.fh, call.size)
            elif call.kind == CALL_IOCTL:
                result = await self._tree.releases.patiently(self._ioctl, call)
        except Exception as problem:
            what = "ioctl" if call.kind == CALL_IOCTL else "growing a volume"
            error = -number_of(problem, what)
        message = _ANSWER.pack(call.id, call.kind, error, 0, len(result)) + result
        try:
            async with self._sending:
                await self._socket.send(message)
        except OSError as problem:
            _log.warning("the lane does not take an answer any more: %s", problem)

    def _ioctl(self, call: Call) -> bytes:
        argument = ioctl_calls.parse(call.cmd, call.data)
        try:
            lvol = self._tree.lvol(call.inode)
        except PermissionError:
            raise OSError(errno.ENOTTY, "lvolfs ioctls work on volumes and snapshots") from None
        owner = call.uid in (0, self._tree.attributes.uid)
        caller = ioctl_calls.Caller(lvol, owner, self._tree.mountpoint, call.pid)
        result = ioctl_calls.perform(caller, argument)
        if len(result) > call.out_size:
            raise OSError(errno.EINVAL, "the request's size is too small for its result")
        return result
