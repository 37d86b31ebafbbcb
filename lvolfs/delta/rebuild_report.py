"""What a rebuild did, snapshot by snapshot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

Action: TypeAlias = Literal["kept", "delta", "full"]


@dataclass
class LayerReport:
    """One snapshot, or the live head. Counts are clusters; checksums 16 hex digits.

    action: kept = it was there and equal; delta = only what differed was copied; full = all
    that it owns was copied. differing: clusters to copy or unmap, those that an interrupted
    run had done included; copied, unmapped: by this run.
    """

    name: str
    kind: Literal["snapshot", "head"]
    action: Action
    owned: int
    differing: int = 0
    copied: int = 0
    unmapped: int = 0
    bytes_read: int = 0
    bytes_moved: int = 0
    seconds: float = 0.0
    resumed: bool = False
    algorithm: str | None = None
    source_checksum: str | None = None
    destination_checksum: str | None = None


@dataclass
class RebuildReport:
    """The layers oldest first, and their sums. bytes_read counts both sides."""

    source: str
    destination: str
    volume: str
    cluster_size: int
    layers: list[LayerReport] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def total(self, name: str) -> int:
        """The sum over the layers of one of their counts."""
        return sum(int(getattr(layer, name)) for layer in self.layers)

    def as_dict(self) -> dict[str, object]:
        counts = ("owned", "differing", "copied", "unmapped", "bytes_read", "bytes_moved")
        found = asdict(self)
        found["seconds"] = round(self.seconds, 3)
        for layer in found["layers"]:
            layer["seconds"] = round(layer["seconds"], 3)
        found["totals"] = {name: self.total(name) for name in counts}
        return found


def hexadecimal(checksum: int | None) -> str | None:
    return None if checksum is None else f"{checksum:016x}"
