"""What every kind of destination offers while it is held open for one copy."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from lvolfs._native.endpoint import Endpoint


@dataclass
class Destination:
    """A destination that is open for writing and that nobody else writes to.

    Opening one refuses, with an OSError that says why, what is read-only (EROFS) or in use
    (EBUSY). close() lets it go. size is bytes.
    """

    kind: Literal["lvol", "file", "block device", "nbd"]
    name: str
    size: int
    endpoint: Endpoint
    held: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        self.held.close()

    def __enter__(self) -> Destination:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
