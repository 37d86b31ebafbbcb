"""Data to fill files with: fast to make, never zeros, no two clusters the same."""

import os
import random
from collections.abc import Iterable
from pathlib import Path

from bench.settings import MIB

_STEP = 4099  # odd: distinct offsets for 2^20 clusters


class Content:
    """1 MiB blocks by number, out of 2 MiB of random bytes; each Content gives others."""

    def __init__(self) -> None:
        self.pool = os.urandom(2 * MIB)

    def block(self, number: int) -> memoryview:
        start = number * _STEP % MIB
        return memoryview(self.pool)[start : start + MIB]

    def fill(self, path: Path, size: int, piece: int = MIB) -> None:
        """The first `size` bytes of a file (made if it is not there), durable, written by `piece`:
        in what pieces a file was written decides for long what its page cache costs."""
        self.write_blocks(path, range(size // MIB), piece)

    def write_blocks(self, path: Path, numbers: Iterable[int], piece: int = MIB) -> None:
        """The 1 MiB blocks with these numbers, durable."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for number in numbers:
                block = self.block(number)
                for at in range(0, MIB, piece):
                    written = os.pwrite(descriptor, block[at : at + piece], number * MIB + at)
                    if written != piece:
                        raise OSError(f"{path}: short write of {written} bytes at block {number}")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def scattered(total: int, share: float, seed: int) -> list[int]:
    """`share` of `total` blocks, at least one, anywhere, in ascending order."""
    count = max(1, round(total * share))
    return sorted(random.Random(seed).sample(range(total), count))
