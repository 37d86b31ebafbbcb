"""The ioctls of a mounted store: `lvolfs.h` in Python.

Requests and structures have the header's names. `call()` fills in what every structure needs
and returns it as the daemon left it:

    with open("/mnt/snapshots/monday", "rb") as file:
        print(call(file, ChecksumGet()).checksum)

Byte counts and cluster numbers are plain integers; a failed call raises OSError with the
errno that the header tells.
"""

import ctypes
import fcntl
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

MAGIC = ord("L")

NAME_SIZE = 256
UUID_SIZE = 40
TEXT_SIZE = 256
DESTINATION_SIZE = 1024
COPY_CLUSTERS = 1024
RANGE_CLUSTERS = 1024
FRAGMAP_BYTES = 8192

VOLUME = 1
SNAPSHOT = 2

XXH3 = 1
CRC64 = 2
ALGORITHMS = {XXH3: "xxh3", CRC64: "crc64"}

STATE_NONE = 0
STATE_IN_PROGRESS = 1
STATE_COMPLETE = 2
STATE_ERROR = 3
STATE_CANCELLED = 4
STATES = {
    STATE_NONE: "none",
    STATE_IN_PROGRESS: "in progress",
    STATE_COMPLETE: "complete",
    STATE_ERROR: "error",
    STATE_CANCELLED: "cancelled",
}

CLUSTER_UNWRITTEN = 0
CLUSTER_WRITTEN = 1
CLUSTER_UNREGISTERED = 2

THIN = 1
READ_ONLY = 2
CLONE = 4
EXTERNAL_CLONE = 8
DEGRADED = 16

COPY_ALL = 1
COPY_DEEP = 2

_U8 = ctypes.c_uint8
_U32 = ctypes.c_uint32
_U64 = ctypes.c_uint64


class Argument(ctypes.Structure):
    """What all structures share: `size` and `flags` in front, `reserved` zeros behind."""

    NUMBER: ClassVar[int]
    FLAGS: ClassVar[int] = 0
    """Flags that the structure knows."""

    size: int
    flags: int

    def __init__(self, **members: Any) -> None:
        super().__init__(size=ctypes.sizeof(self), **members)

    @classmethod
    def request(cls) -> int:
        """The ioctl's number: read and write, size, magic, number of the call."""
        return 3 << 30 | ctypes.sizeof(cls) << 16 | MAGIC << 8 | cls.NUMBER


_HEAD: list[tuple[str, Any]] = [("size", _U32), ("flags", _U32)]


class Info(Argument):
    """struct lvolfs_info: what an lvol is."""

    NUMBER = 1
    _fields_ = [
        *_HEAD,
        ("bytes", _U64),
        ("num_clusters", _U64),
        ("num_allocated_clusters", _U64),
        ("cluster_size", _U32),
        ("type", _U32),
        ("properties", _U32),
        ("num_children", _U32),
        ("uuid", ctypes.c_char * UUID_SIZE),
        ("name", ctypes.c_char * NAME_SIZE),
        ("parent", ctypes.c_char * NAME_SIZE),
        ("reserved", _U64 * 8),
    ]
    bytes: int
    num_clusters: int
    num_allocated_clusters: int
    cluster_size: int
    type: int
    properties: int
    num_children: int
    uuid: Any
    name: Any
    parent: Any


class Snapshot(Argument):
    """struct lvolfs_create: a snapshot of a volume, `name` (bytes) in, `uuid` out."""

    NUMBER = 2
    _fields_ = [
        *_HEAD,
        ("name", ctypes.c_char * NAME_SIZE),
        ("uuid", ctypes.c_char * UUID_SIZE),
        ("reserved", _U64 * 4),
    ]
    name: Any
    uuid: Any


class Clone(Argument):
    """struct lvolfs_create: a clone of a snapshot, `name` (bytes) in, `uuid` out."""

    NUMBER = 3
    _fields_ = Snapshot._fields_
    name: Any
    uuid: Any


class ChecksumRegister(Argument):
    """struct lvolfs_checksum_register: `count` 0 = all clusters; `id` of the operation out."""

    NUMBER = 4
    _fields_ = [
        *_HEAD,
        ("start", _U64),
        ("count", _U64),
        ("algorithm", _U32),
        ("reserved0", _U32),
        ("id", _U64),
        ("reserved", _U64 * 4),
    ]
    start: int
    count: int
    algorithm: int
    id: int


class ChecksumStatus(Argument):
    """struct lvolfs_checksum_status: the latest registration."""

    NUMBER = 5
    _fields_ = [
        *_HEAD,
        ("state", _U32),
        ("algorithm", _U32),
        ("done", _U64),
        ("total", _U64),
        ("error", ctypes.c_char * TEXT_SIZE),
        ("reserved", _U64 * 4),
    ]
    state: int
    algorithm: int
    done: int
    total: int
    error: Any


class ChecksumGet(Argument):
    """struct lvolfs_checksum_get: the snapshot's checksum."""

    NUMBER = 6
    _fields_ = [
        *_HEAD,
        ("checksum", _U64),
        ("algorithm", _U32),
        ("reserved0", _U32),
        ("reserved", _U64 * 4),
    ]
    checksum: int
    algorithm: int


class ChecksumRange(Argument):
    """struct lvolfs_checksum_range: `start` and `count` in; `count` states and checksums out."""

    NUMBER = 7
    _fields_ = [
        *_HEAD,
        ("start", _U64),
        ("count", _U64),
        ("algorithm", _U32),
        ("reserved0", _U32),
        ("reserved", _U64 * 4),
        ("state", _U8 * RANGE_CLUSTERS),
        ("checksum", _U64 * RANGE_CLUSTERS),
    ]
    start: int
    count: int
    algorithm: int
    state: Any
    checksum: Any


class Fragmap(Argument):
    """struct lvolfs_fragmap: `start` and `count` in; `count` bits and how many are set out."""

    NUMBER = 8
    _fields_ = [
        *_HEAD,
        ("start", _U64),
        ("count", _U64),
        ("allocated", _U64),
        ("reserved", _U64 * 4),
        ("bits", _U8 * FRAGMAP_BYTES),
    ]
    start: int
    count: int
    allocated: int
    bits: Any


class CopyStart(Argument):
    """struct lvolfs_copy_start: `destination` (bytes) and clusters, or COPY_ALL; `id` out."""

    NUMBER = 9
    FLAGS = COPY_ALL | COPY_DEEP
    _fields_ = [
        *_HEAD,
        ("id", _U64),
        ("num_clusters", _U32),
        ("reserved0", _U32),
        ("reserved", _U64 * 4),
        ("destination", ctypes.c_char * DESTINATION_SIZE),
        ("clusters", _U32 * COPY_CLUSTERS),
    ]
    id: int
    num_clusters: int
    destination: Any
    clusters: Any


class CopyStatus(Argument):
    """struct lvolfs_copy_status: `id` in, 0 = the lvol's latest copy."""

    NUMBER = 10
    _fields_ = [
        *_HEAD,
        ("id", _U64),
        ("state", _U32),
        ("reserved0", _U32),
        ("total", _U64),
        ("copied", _U64),
        ("unmapped", _U64),
        ("bytes", _U64),
        ("error", ctypes.c_char * TEXT_SIZE),
        ("reserved", _U64 * 4),
    ]
    id: int
    state: int
    total: int
    copied: int
    unmapped: int
    bytes: int
    error: Any


class CopyCancel(Argument):
    """struct lvolfs_copy_cancel."""

    NUMBER = 11
    _fields_ = [*_HEAD, ("id", _U64), ("reserved", _U64 * 4)]
    id: int


ARGUMENTS: dict[int, type[Argument]] = {
    kind.request(): kind
    for kind in (
        Info,
        Snapshot,
        Clone,
        ChecksumRegister,
        ChecksumStatus,
        ChecksumGet,
        ChecksumRange,
        Fragmap,
        CopyStart,
        CopyStatus,
        CopyCancel,
    )
}
"""Structures by request number."""


class HasFileno(Protocol):
    def fileno(self) -> int: ...


_A = TypeVar("_A", bound=Argument)


def call(file: int | HasFileno, argument: _A) -> _A:
    """Makes the ioctl that the argument's type stands for, on an open file of the mount."""
    fcntl.ioctl(file, argument.request(), argument)
    return argument


def include_directory() -> Path:
    """Where `lvolfs.h` is."""
    return Path(__file__).parent / "include"
