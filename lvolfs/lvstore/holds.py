"""Who holds an lvol: open handles, and operations that may not be disturbed."""

import errno
import threading
from contextlib import AbstractContextManager
from types import TracebackType


class OpenToken:
    """One open handle of an lvol; closing it twice is harmless."""

    def __init__(self, holds: "Holds", write: bool) -> None:
        self._holds: Holds | None = holds
        self.write = write

    def close(self) -> None:
        holds, self._holds = self._holds, None
        if holds is not None:
            holds.release(self.write)

    def __enter__(self) -> "OpenToken":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


class Claim:
    """While entered, the lvol is busy with one operation and others are refused.

    It begins under `lock`, the store's, so never in the middle of a control operation that
    has found the lvol idle.
    """

    def __init__(
        self, holds: "Holds", lock: AbstractContextManager[object], operation: str, subject: str
    ) -> None:
        self._holds = holds
        self._lock = lock
        self._operation = operation
        self._subject = subject

    def __enter__(self) -> None:
        with self._lock:
            self._holds.begin(self._operation, self._subject)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._holds.end()


class Holds:
    """Counts of one lvol; safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.opened = 0
        self.writers = 0
        self.operation: str | None = None

    def open(self, write: bool) -> OpenToken:
        with self._lock:
            self.opened += 1
            self.writers += write
        return OpenToken(self, write)

    def release(self, write: bool) -> None:
        with self._lock:
            self.opened -= 1
            self.writers -= write

    def begin(self, operation: str, subject: str) -> None:
        with self._lock:
            if self.operation is not None:
                raise OSError(
                    errno.EBUSY,
                    f"{subject} is busy: {self.operation} is under way; wait for it or cancel it",
                )
            self.operation = operation

    def end(self) -> None:
        with self._lock:
            self.operation = None
