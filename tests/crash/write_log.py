"""A recorded device's write log, and the disks that a power cut could make of it.

The fault model: everything up to the last completed flush is there; of the requests since,
any subset is, in their order, each in whole sectors of 512 bytes. A request that is longer than
a metadata page may be torn at any sector, and so may data, continuation pages and extent pages
that go to a place where zeros were. What is torn nowhere is a metadata page that takes the place
of another, and a blob's first page: the format relies on 4096 bytes being written whole or not
at all. A file that was extended may have its old size again.
"""

from __future__ import annotations

import mmap
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WRITE, ZERO, DISCARD, FLUSH, MARK, EXTEND = 1, 2, 3, 4, 5, 6
SECTOR = 512
PAGE = 4096
ENTRY = struct.Struct("<IIQQ")
# A mark with this bit tells that the file was extended to the size in the other bits.
EXTENDED = 1 << 63


@dataclass(frozen=True, slots=True)
class Entry:
    kind: int
    offset: int
    length: int
    data: bytes = b""

    @property
    def sectors(self) -> int:
        return 1 if self.kind == EXTEND else -(-self.length // SECTOR)

    @property
    def is_request(self) -> bool:
        """Whether a cut may lose it."""
        return self.kind not in {FLUSH, MARK}

    def put(self, image: bytearray | mmap.mmap, first: int, end: int) -> None:
        """Sectors first..end-1 of it."""
        start, stop = first * SECTOR, min(end * SECTOR, self.length)
        piece = self.data[start:stop] if self.kind == WRITE else bytes(stop - start)
        image[self.offset + start : self.offset + stop] = piece


# (index of an entry, first sector, end sector): what of it reached the disk
Kept = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """After `requests` entries of the log; of those since the last flush `kept` is there."""

    requests: int
    kept: tuple[Kept, ...]
    last_mark: int


def read_logs(paths: Iterable[Path]) -> list[Entry]:
    """The entries of one log after the other."""
    entries = []
    for path in paths:
        raw = path.read_bytes()
        at = 0
        while at < len(raw):
            kind, reserved, offset, length = ENTRY.unpack_from(raw, at)
            assert reserved == 0
            at += ENTRY.size
            data = raw[at : at + length] if kind == WRITE else b""
            at += len(data)
            if kind == MARK and offset & EXTENDED:
                entries.append(Entry(EXTEND, 0, offset ^ EXTENDED))
            else:
                entries.append(Entry(kind, offset, length, data))
    return entries


class Disk:
    """The file at `path`, brought into the state of one cut after the other.

    metadata_end: bytes from the beginning that hold the store's metadata, not data.
    """

    def __init__(
        self, path: Path, base: bytes, entries: Sequence[Entry], metadata_end: int
    ) -> None:
        self.path = path
        self.entries = entries
        self._metadata_end = metadata_end
        largest = max([len(base), *(entry.length for entry in entries if entry.kind == EXTEND)])
        self._durable = bytearray(largest)
        self._durable[: len(base)] = base
        self._size = self._shown_size = len(base)
        self._file = path.open("w+b", buffering=0)
        self._file.truncate(largest)
        self.map = mmap.mmap(self._file.fileno(), largest)
        self._file.truncate(self._size)

    def close(self) -> None:
        self.map.close()
        self._file.close()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settle(self, indices: Iterable[int]) -> None:
        """Makes these requests durable."""
        for index in indices:
            entry = self.entries[index]
            if entry.kind == EXTEND:
                self._size = max(self._size, entry.length)
            else:
                entry.put(self._durable, 0, entry.sectors)

    def show(self, kept: Iterable[Kept]) -> None:
        """The file becomes what is durable, and of the requests since what is kept."""
        size = self._size
        if self._shown_size != len(self.map):
            # The mapping may not be touched behind the end of the file.
            self._file.truncate(len(self.map))
        self.map[:] = self._durable
        for index, first, end in kept:
            entry = self.entries[index]
            if entry.kind == EXTEND:
                size = max(size, entry.length)
            else:
                entry.put(self.map, first, end)
        if size != len(self.map):
            self._file.truncate(size)
        self._shown_size = size

    def show_again(self, cut: Cut) -> None:
        """What it showed when it was at this cut."""
        self.show(cut.kept)

    def content(self) -> bytes:
        """What it shows now."""
        return bytes(self.map[: self._shown_size])

    def show_cut(self, cut: Cut) -> None:
        """The same from nothing but the base: for a cut on its own. The disk is used up."""
        pending: list[int] = []
        for index, entry in enumerate(self.entries[: cut.requests]):
            if entry.kind == FLUSH:
                self.settle(pending)
                pending.clear()
            elif entry.is_request:
                pending.append(index)
        self.show(cut.kept)

    def may_be_torn(self, index: int, pending: Sequence[int]) -> bool:
        """See the fault model above."""
        entry = self.entries[index]
        if entry.kind == EXTEND or entry.sectors < 2:
            return False
        if entry.length > PAGE or entry.kind != WRITE:
            return True
        if entry.offset >= self._metadata_end:
            return True
        (sequence,) = struct.unpack_from("<I", entry.data, 8)
        if sequence == 0 and not _is_extent_page(entry.data):
            return False
        place = range(entry.offset, entry.offset + PAGE)
        others = (self.entries[other] for other in pending if other < index)
        return not any(self._durable[place.start : place.stop]) and all(
            other.offset >= place.stop or other.offset + other.length <= place.start
            for other in others
        )


def _is_extent_page(page: bytes) -> bool:
    return page[16] == 6


def cuts(disk: Disk, chance: random.Random, subsets: int) -> Iterator[Cut]:
    """Brings the disk into the state of each cut, and tells which.

    After every request: all of them so far, and `subsets` random subsets of those that are not
    flushed. At the end of every step: nothing but what is flushed.
    """
    pending: list[int] = []
    last_mark = -1
    disk.show(())
    yield Cut(0, (), last_mark)
    for index, entry in enumerate(disk.entries):
        if entry.kind == MARK:
            last_mark = entry.offset
            if last_mark % 2:
                disk.show(())
                yield Cut(index + 1, (), last_mark)
            continue
        if entry.kind == FLUSH:
            disk.settle(pending)
            pending.clear()
            continue
        pending.append(index)
        whole = tuple((other, 0, disk.entries[other].sectors) for other in pending)
        shown = {whole}
        disk.show(whole)
        yield Cut(index + 1, whole, last_mark)
        for _ in range(subsets):
            kept = _subset(disk, whole, chance)
            if kept not in shown:
                shown.add(kept)
                disk.show(kept)
                yield Cut(index + 1, kept, last_mark)


def _subset(disk: Disk, whole: tuple[Kept, ...], chance: random.Random) -> tuple[Kept, ...]:
    """Few of them, some, or most; three of ten torn where they may be."""
    share = chance.choice((0.15, 0.5, 0.85))
    pending = [index for index, _, _ in whole]
    kept = []
    for index, _, sectors in whole:
        if chance.random() >= share:
            continue
        first, end = 0, sectors
        if chance.random() < 0.3 and disk.may_be_torn(index, pending):
            first = chance.randrange(sectors)
            end = chance.randrange(first, sectors) + 1
        kept.append((index, first, end))
    return tuple(kept)
