"""What a process holds: memory, descriptors, threads."""

import gc
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resources:
    """memory: bytes that are resident and nobody else's."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int | None = None) -> "Resources":
        if pid is None:
            gc.collect()
        process = Path("/proc", str(pid or os.getpid()))
        fields = {}
        for line in (process / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value
        memory = int(fields["RssAnon"].split()[0]) * 1024
        descriptors = len(list((process / "fd").iterdir()))
        return cls(memory, descriptors, int(fields["Threads"]))

    def assert_no_more_than(self, before: "Resources", *, memory: int) -> None:
        """The same number of descriptors and threads; at most `memory` bytes more."""
        assert self.descriptors <= before.descriptors, f"{before} became {self}"
        assert self.threads <= before.threads, f"{before} became {self}"
        assert self.memory <= before.memory + memory, f"{before} became {self}"
