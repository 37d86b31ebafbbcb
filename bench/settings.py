"""How much is measured."""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Settings:
    directory: Path
    rounds: int
    """Of the cases that fio's targets are set for; others say how many fewer they take."""
    seconds: float
    """Of one fio run."""
    minutes: float
    """After these no further sample is taken."""
    quick: bool
    rebuild_size: int
    """Of the volume that replicas are made of."""

    @classmethod
    def of(
        cls,
        directory: Path,
        *,
        quick: bool = False,
        rounds: int | None = None,
        seconds: float | None = None,
        minutes: float | None = None,
        rebuild_size: int | None = None,
    ) -> "Settings":
        """With what `make bench`, or `make bench QUICK=1`, takes for all that is not given."""
        return cls(
            directory,
            rounds or (2 if quick else 5),
            seconds or (0.3 if quick else 1.5),
            minutes or (2.75 if quick else 29),
            quick,
            rebuild_size or (256 * MIB if quick else 8 * GIB),
        )

    @property
    def volume_size(self) -> int:
        """Of the volumes that fio runs on."""
        return 256 * MIB if self.quick else GIB

    @property
    def rebuild_together(self) -> bool:
        """Whether the replicas of all contestants are there at a time, for interleaved rounds."""
        return self.rebuild_size <= GIB
