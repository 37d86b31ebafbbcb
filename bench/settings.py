"""How much is measured."""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Settings:
    directory: Path
    rounds: int = 3
    seconds: float = 1.5
    """Of one fio run."""
    quick: bool = False
    rebuild_size: int = 8 * GIB
    """Of the volume that replicas are made of."""

    @property
    def volume_size(self) -> int:
        """Of the volumes that fio runs on."""
        return 256 * MIB if self.quick else GIB

    @property
    def rebuild_together(self) -> bool:
        """Whether the replicas of all contestants are there at a time, for interleaved rounds."""
        return self.rebuild_size <= GIB
