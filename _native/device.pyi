from types import TracebackType
from typing import Literal

class Device:
    """A regular file or block device, locked against other openers.

    A writable Device holds an exclusive lock (flock), a read-only one a shared lock.
    Raises OSError(EBUSY) naming the holder when the lock cannot be had, and
    OSError(EINVAL) for anything that is neither a regular file nor a block device.
    """

    path: str
    def __init__(self, path: str, *, read_only: bool = False, lock: bool = True) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def is_block(self) -> bool: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def counters(self) -> dict[str, int]: ...
    def pread(self, length: int, offset: int) -> bytes: ...
    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None: ...
    def zero(self, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...
    def refresh_size(self) -> int: ...
    def explain(self, error: int) -> str:
        """What this errno means here: strerror, or that the file or device has shrunk."""
    @property
    def lost_bytes(self) -> int:
        """How much of what is needed of the file or device is behind its end by now."""
    def record(self, path: str) -> None:
        """From now on every write, zeroing, discard and flush is appended to a log at `path`
        (format: write_log.pxd). Before any other thread uses the device."""
    def mark(self, number: int) -> None:
        """Appends a mark of the caller's to the log of a recorded device."""
    def plant_fault(
        self,
        operation: Literal["read", "write", "flush"],
        error: int,
        *,
        skip: int = 0,
        times: int | None = None,
        offset: int = 0,
        length: int | None = None,
        cut: int = 0,
    ) -> None:
        """From now on requests that touch `length` bytes at `offset` (all, if not given) fail
        with the errno `error`: after `skip` of them `times` in a row, or all. The first `cut`
        bytes of each get through before it fails; `error` 0: the rest, too, with the next
        call of the kernel. Zeroing is a write. Only with LVOLFS_SEEDED_FAULTS=1 (EPERM)."""
    def clear_faults(self) -> None: ...
    @property
    def injected_faults(self) -> int:
        """How many requests failed with a planted fault."""
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Device: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...
