"""Base devices: the files, block devices and memory that stores and copies are given by name."""

import contextlib
import errno
import os
import stat
import threading
import uuid as uuids
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["aio", "uring", "malloc"]

MIN_BLOCK_SIZE = 512
MAX_SIZE = (1 << 63) - 1


@dataclass
class BaseBdev:
    """A file, a block device or an anonymous memory file under a name.

    memory is the descriptor that keeps a memory file alive; it is open for reading only, so
    that it does not count as a writer when the file is about to be copied to.
    """

    kind: Kind
    name: str
    uuid: str
    path: str
    block_size: int
    num_blocks: int
    block_size_given: bool = True
    read_only: bool = False
    fallocate: bool = False
    memory: int | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return self.block_size * self.num_blocks

    def rescan(self) -> None:
        """Takes over the size that the file or device has now."""
        self.num_blocks = size_of(self.path) // self.block_size

    def close(self) -> None:
        memory, self.memory = self.memory, None
        if memory is not None:
            os.close(memory)


def size_of(path: str) -> int:
    """Bytes of a regular file or block device. OSError: ENOENT, EACCES, EINVAL."""
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise OSError(errno.EINVAL, f"'{path}' is neither a regular file nor a block device")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def canonical_uuid(text: str | None) -> str:
    """As given, or a new one. OSError(EINVAL) for what is no uuid."""
    try:
        return str(uuids.uuid4() if text is None else uuids.UUID(text))
    except ValueError:
        raise OSError(errno.EINVAL, f"{text!r} is no uuid") from None


def check_block_size(block_size: int) -> None:
    if block_size < MIN_BLOCK_SIZE or block_size & (block_size - 1):
        raise OSError(
            errno.EINVAL,
            f"block size {block_size}: a power of two of at least {MIN_BLOCK_SIZE} is needed",
        )


def of_file(
    kind: Kind,
    name: str,
    path: str,
    block_size: int,
    *,
    uuid: str | None = None,
    read_only: bool = False,
    fallocate: bool = False,
) -> BaseBdev:
    """block_size 0: the device's own; a regular file has none, so it must be given."""
    size = size_of(path)
    given = block_size != 0
    if not given:
        block_size = _logical_block_size(path)
    check_block_size(block_size)
    if size % block_size:
        raise OSError(
            errno.EINVAL, f"'{path}' has {size} bytes, which is no multiple of {block_size}"
        )
    return BaseBdev(
        kind,
        name,
        canonical_uuid(uuid),
        path,
        block_size,
        size // block_size,
        block_size_given=given,
        read_only=read_only,
        fallocate=fallocate,
    )


def _logical_block_size(path: str) -> int:
    number = Path(path).stat()
    if not stat.S_ISBLK(number.st_mode):
        raise OSError(errno.EINVAL, f"'{path}' is a file without a block size: give block_size")
    device = f"{os.major(number.st_rdev)}:{os.minor(number.st_rdev)}"
    return int(Path(f"/sys/dev/block/{device}/queue/logical_block_size").read_text())


def of_memory(name: str, num_blocks: int, block_size: int, uuid: str | None) -> BaseBdev:
    """An anonymous memory file of that size, all zeros; pages are taken as they are written."""
    check_block_size(block_size)
    if num_blocks == 0:
        raise OSError(errno.EINVAL, f"bdev '{name}': num_blocks must not be 0")
    if num_blocks * block_size > MAX_SIZE:
        raise OSError(errno.EFBIG, f"bdev '{name}': {num_blocks} blocks of {block_size} bytes")
    uuid = canonical_uuid(uuid)
    writable = os.memfd_create("lvolfs-malloc")
    try:
        os.ftruncate(writable, num_blocks * block_size)
        memory = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
    path = f"/proc/{os.getpid()}/fd/{memory}"
    return BaseBdev("malloc", name, uuid, path, block_size, num_blocks, memory=memory)


class BaseBdevs:
    """All base devices of a target, in the order in which they were made. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bdevs: dict[str, BaseBdev] = {}
        self._changed = threading.Condition(self._lock)
        self.auto_examine = True
        """Whether a store on a new base device is opened at once."""

    def add(self, bdev: BaseBdev) -> None:
        """OSError(EEXIST) for a name or uuid that is taken; the bdev is closed then."""
        with self._changed:
            for other in self._bdevs.values():
                if bdev.name in (other.name, other.uuid) or bdev.uuid in (other.name, other.uuid):
                    bdev.close()
                    raise OSError(errno.EEXIST, f"there is a bdev '{other.name}' already")
            self._bdevs[bdev.name] = bdev
            self._changed.notify_all()

    def remove(self, bdev: BaseBdev) -> None:
        with self._lock, contextlib.suppress(KeyError):
            del self._bdevs[bdev.name]
        bdev.close()

    def find(self, name: str) -> BaseBdev | None:
        """By name or uuid."""
        with self._lock:
            for bdev in self._bdevs.values():
                if name in (bdev.name, bdev.uuid):
                    return bdev
        return None

    def of_path(self, path: str) -> BaseBdev | None:
        with self._lock:
            for bdev in self._bdevs.values():
                if bdev.path == path:
                    return bdev
        return None

    def wait_changed(self, seconds: float) -> None:
        """Until a device was added, at most that long."""
        with self._changed:
            self._changed.wait(seconds)

    def list(self) -> "list[BaseBdev]":
        with self._lock:
            return list(self._bdevs.values())

    def free_name(self, prefix: str) -> str:
        """prefix0, prefix1, ...: the first that is not taken."""
        taken = {bdev.name for bdev in self.list()}
        number = 0
        while f"{prefix}{number}" in taken:
            number += 1
        return f"{prefix}{number}"

    def close(self) -> None:
        for bdev in self.list():
            self.remove(bdev)
