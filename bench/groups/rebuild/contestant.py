"""What every way of bringing a replica up to date has to do."""

from pathlib import Path
from typing import Protocol

from bench.case import Sample


class Contestant(Protocol):
    """A source and a replica, equal at first, in a directory of their own."""

    def open(self, directory: Path, size: int) -> None:
        """Makes both sides, `size` bytes of data each, unless its family's are there."""

    def change(self, share: float, seed: int) -> int:
        """Makes `share` of the clusters differ; bytes that differ. Durable, not timed."""

    def update(self) -> Sample:
        """Makes the replica equal to the source, durably: "value" in seconds, "moved" bytes."""

    def verify(self) -> None:
        """ProgramError if the two sides differ; not timed."""

    def close(self) -> None:
        """Unmounts and ends everything; the directory is removed by the caller."""
