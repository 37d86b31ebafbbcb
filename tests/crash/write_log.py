"""Reads a device's write log and makes the states a power cut could leave.

The fault model: everything up to the last completed flush is there; of the requests since,
any subset is, each in whole sectors: a request of more than one metadata page may be torn at
any sector. A single 4096-byte page is written whole or not at all, which the format relies on.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WRITE, ZERO, DISCARD, FLUSH, MARK = 1, 2, 3, 4, 5
SECTOR = 512
PAGE = 4096
ENTRY = struct.Struct("<IIQQ")


@dataclass(frozen=True)
class Entry:
    kind: int
    offset: int
    length: int
    data: bytes = b""

    def apply(self, image: bytearray) -> None:
        if self.kind == WRITE:
            image[self.offset : self.offset + self.length] = self.data
        elif self.kind in {ZERO, DISCARD}:
            image[self.offset : self.offset + self.length] = bytes(self.length)

    def torn(self, chance: random.Random) -> Entry:
        """Some run of its sectors only."""
        if self.kind != WRITE or self.length <= PAGE:
            return self
        sectors = self.length // SECTOR
        start = chance.randrange(sectors) * SECTOR
        stop = start + chance.randrange(1, sectors + 1) * SECTOR
        piece = self.data[start:stop]
        return Entry(WRITE, self.offset + start, len(piece), piece)


def read_log(path: Path) -> list[Entry]:
    raw = path.read_bytes()
    entries, at = [], 0
    while at < len(raw):
        kind, reserved, offset, length = ENTRY.unpack_from(raw, at)
        assert reserved == 0
        at += ENTRY.size
        data = raw[at : at + length] if kind == WRITE else b""
        at += len(data)
        entries.append(Entry(kind, offset, length, data))
    return entries


@dataclass(frozen=True)
class Cut:
    """A state after a power cut: `marks` are the marks written before it."""

    description: str
    image: bytearray
    last_mark: int


def cuts(
    base: bytes, entries: list[Entry], *, chance: random.Random, subsets: int
) -> Iterator[Cut]:
    """Every prefix, and after each write `subsets` random subsets of what is not flushed."""
    durable = bytearray(base)
    pending: list[Entry] = []
    last_mark = -1
    yield Cut("before the first request", bytearray(durable), last_mark)
    for number, entry in enumerate(entries):
        if entry.kind == MARK:
            last_mark = entry.offset
            continue
        if entry.kind == FLUSH:
            for waiting in pending:
                waiting.apply(durable)
            pending.clear()
            continue
        pending.append(entry)
        image = bytearray(durable)
        for waiting in pending:
            waiting.apply(image)
        yield Cut(f"prefix of {number + 1} requests", image, last_mark)
        for round_ in range(subsets if len(pending) > 1 or entry.length > PAGE else 0):
            image = bytearray(durable)
            kept = []
            for index, waiting in enumerate(pending):
                if chance.random() < 0.5:
                    continue
                kept.append(index)
                (waiting.torn(chance) if chance.random() < 0.3 else waiting).apply(image)
            text = f"{kept} of the {len(pending)} unflushed of the first {number + 1} requests"
            yield Cut(f"subset {round_}: {text}", image, last_mark)
