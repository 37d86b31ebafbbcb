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

    @property
    def volume_size(self) -> int:
        """Of the volumes that fio runs on."""
        return 256 * MIB if self.quick else GIB

    @property
    def rebuild_size(self) -> int:
        return 512 * MIB if self.quick else 8 * GIB
