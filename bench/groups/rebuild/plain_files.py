"""dd and rsync: two plain files."""

import contextlib
import time
from pathlib import Path

from bench.case import Sample
from bench.content import Content, scattered
from bench.page_cache import kept_warm
from bench.processes import ProgramError, execute
from bench.settings import MIB


class PlainFiles:
    def open(self, directory: Path, size: int) -> None:
        self.size = size
        self.stack = contextlib.ExitStack()
        self.source, self.replica = directory / "source", directory / "replica"
        if self.replica.exists():
            return
        content = Content()
        for path in (self.source, self.replica):
            content.fill(path, size)
            self.stack.enter_context(kept_warm(path))

    def change(self, share: float, seed: int) -> int:
        numbers = scattered(self.size // MIB, share, seed)
        Content().write_blocks(self.source, numbers)
        return len(numbers) * MIB

    def verify(self) -> None:
        execute("cmp", self.source, self.replica)

    def close(self) -> None:
        self.stack.close()


class FullCopy(PlainFiles):
    """dd over the old file, flushed: no new blocks are needed, unlike for cp."""

    def update(self) -> Sample:
        start = time.monotonic()
        execute("dd", f"if={self.source}", f"of={self.replica}", "bs=1M", "conv=notrunc,fsync")
        return {"value": time.monotonic() - start, "moved": float(self.size)}


class Rsync(PlainFiles):
    """In place, by rolling checksums; --block-size is left to rsync, which chooses well."""

    def update(self) -> Sample:
        start = time.monotonic()
        output = execute(
            "rsync",
            "--inplace",
            "--no-whole-file",
            "--ignore-times",
            "--stats",
            "--no-human-readable",
            self.source,
            self.replica,
        )
        execute("sync", self.replica)
        seconds = time.monotonic() - start
        return {"value": seconds, "moved": literal_bytes(output)}


def literal_bytes(stats: str) -> float:
    for line in stats.split("\n"):
        if line.startswith("Literal data:"):
            return float(line.split()[2].replace(",", ""))
    raise ProgramError(f"rsync --stats does not say how much it moved: {stats}")
