"""Damages a store's metadata as a fuzzer says: fields, descriptors, links, masks, with right
checksums where wanted, so that what lies behind the checksum is reached."""

import struct
from collections.abc import Callable

from lvolfs.blobstore.crc32c import crc32c
from tests.fuzz.byte_choices import ByteChoices
from tests.fuzz.store_bases import StoreBase

PAGE = 4096
# (offset, bytes) of the superblock's fields.
SUPERBLOCK = [
    *((8, 4), (12, 4), (16, 4), (20, 8), (28, 4), (32, 4), (36, 4), (40, 4), (44, 4)),
    *((48, 4), (52, 4), (56, 8), (72, 4), (76, 4), (80, 8), (88, 4), (92, 4), (0, 8)),
]
PAGE_HEADER = [(0, 8), (8, 4), (4088, 4), (12, 4)]
LINKS = [b"SNAP", b"SNAPTMP", b"SNAPRM", b"EXTSNAP", b"name", b"uuid"]
MOST_EDITS = 12


class MutatedStore:
    """image: the metadata as they are to be written; size: of the device."""

    def __init__(self, base: StoreBase) -> None:
        self.base = base
        self.image = bytearray(base.metadata)
        self.size = base.size
        self.pages = list(base.used_pages)

    def apply(self, choices: ByteChoices) -> None:
        edits: list[Callable[[ByteChoices], None]] = [
            self._page_field,
            self._descriptor_field,
            self._descriptor_number,
            self._extent_entry,
            self._copy_page,
            self._mask,
            self._zero_page,
            self._add_link,
            self._add_descriptor,
            self._flip,
            self._superblock_field,
            self._clean,
            self._truncate,
            self._extent_table,
            self._runs,
        ]
        for _ in range(MOST_EDITS):
            if not choices.left:
                break
            choices.one_of(edits)(choices)

    # -- numbers and places

    def _number(self, choices: ByteChoices, size: int) -> int:
        base = self.base
        near = [
            *(0, 1, 2, 3, 511, 512, 513, base.md_len - 1, base.md_len, base.md_start),
            *(base.size >> 14, base.size >> 16, 1 << 20, 1 << 28, (1 << 28) + 1),
            *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 4096, 4095, 1 << 32, (1 << 64) - 1),
        ]
        kind = choices.below(4)
        if kind == 0:
            value = choices.one_of(near)
        elif kind == 1:
            value = choices.one_of(self.pages)
        elif kind == 2:
            value = 1 << 32 | choices.one_of(self.pages)
        else:
            value = choices.number(size)
        return value & (1 << 8 * size) - 1

    def _used(self, choices: ByteChoices) -> int:
        return choices.one_of(self.pages)

    def _put(self, offset: int, data: bytes) -> None:
        end = min(offset + len(data), len(self.image))
        if offset < end:
            self.image[offset:end] = data[: end - offset]

    def _seal(self, index: int | None) -> None:
        """The right checksum for metadata page `index`; None is the superblock."""
        at = 0 if index is None else self.base.offset(index)
        page = bytes(self.image[at : at + PAGE - 4])
        self._put(at + PAGE - 4, struct.pack("<I", crc32c(page)))

    def _descriptors(self, index: int) -> list[tuple[int, int]]:
        """(offset in the image, length of the payload) of a page's descriptors."""
        found = []
        offset = self.base.offset(index) + 16
        end = offset + 4072
        while offset + 5 <= end:
            kind, length = struct.unpack_from("<BI", self.image, offset)
            if (kind == 0 and length == 0) or offset + 5 + length > end:
                break
            found.append((offset, length))
            offset += 5 + length
        return found

    def _free_room(self, index: int) -> int:
        """Where the descriptors of a page end."""
        found = self._descriptors(index)
        return found[-1][0] + 5 + found[-1][1] if found else self.base.offset(index) + 16

    # -- edits

    def _superblock_field(self, choices: ByteChoices) -> None:
        offset, size = choices.one_of(SUPERBLOCK)
        self._put(offset, self._number(choices, size).to_bytes(size, "little"))
        if choices.below(8):
            self._seal(None)

    def _page_field(self, choices: ByteChoices) -> None:
        index = self._used(choices)
        offset, size = choices.one_of(PAGE_HEADER)
        value = self._number(choices, size).to_bytes(size, "little")
        self._put(self.base.offset(index) + offset, value)
        self._seal(index)

    def _descriptor_field(self, choices: ByteChoices) -> None:
        """Type or length."""
        index = self._used(choices)
        found = self._descriptors(index)
        if found:
            offset, length = choices.one_of(found)
            if choices.below(2):
                self._put(offset, bytes([choices.below(10)]))
            else:
                near = [0, 1, 4, 8, length - 1, length + 1, 4067, 4068, 0xFFFFFFFF]
                self._put(offset + 1, struct.pack("<I", choices.one_of(near) & 0xFFFFFFFF))
            self._seal(index)

    def _descriptor_number(self, choices: ByteChoices) -> None:
        index = self._used(choices)
        found = self._descriptors(index)
        if found:
            offset, length = choices.one_of(found)
            size = choices.one_of([4, 8, 2, 1])
            place = offset + 5 + choices.below(max(1, length // size)) * size
            self._put(place, self._number(choices, size).to_bytes(size, "little"))
            self._seal(index)

    def _extent_entry(self, choices: ByteChoices) -> None:
        """A cluster number in an extent page: past the end, in the metadata, another's."""
        extents = [i for i in self.pages if self.image[self.base.offset(i) + 16] == 6]
        if extents:
            index = choices.one_of(extents)
            place = self.base.offset(index) + 25 + 4 * choices.below(512)
            value = choices.below(260) if choices.below(2) else self._number(choices, 4)
            self._put(place, struct.pack("<I", value))
            self._seal(index)

    def _copy_page(self, choices: ByteChoices) -> None:
        """Two pages that say the same: owned twice; with its id changed, a second blob."""
        source = self._used(choices)
        target = choices.below(self.base.md_len)
        at = self.base.offset(source)
        self._put(self.base.offset(target), bytes(self.image[at : at + PAGE]))
        if choices.below(2):
            self._put(self.base.offset(target), struct.pack("<Q", 1 << 32 | target))
        self._seal(target)
        if target not in self.pages:
            self.pages.append(target)

    def _mask(self, choices: ByteChoices) -> None:
        offset = PAGE + choices.below(max(1, self.base.md_start * self.base.page_size - PAGE))
        if choices.below(2):
            offset = offset // PAGE * PAGE + choices.below(16)
        self._put(offset, bytes([choices.number(1)]))

    def _zero_page(self, choices: ByteChoices) -> None:
        self._put(self.base.offset(self._used(choices)), bytes(PAGE))

    def _insert(self, index: int, descriptor: bytes) -> None:
        place = self._free_room(index)
        if place + len(descriptor) <= self.base.offset(index) + PAGE - 8:
            self._put(place, descriptor)
            self._seal(index)

    def _add_link(self, choices: ByteChoices) -> None:
        """An internal xattr: parents, loops of them, markers of interrupted snapshots."""
        index = self._used(choices)
        name = choices.one_of(LINKS)
        value = struct.pack("<Q", self._number(choices, 8))
        if not choices.below(8):
            value = choices.take(choices.below(64))
        payload = struct.pack("<HH", len(name), len(value)) + name + value
        self._insert(index, struct.pack("<BI", 4, len(payload)) + payload)

    def _add_descriptor(self, choices: ByteChoices) -> None:
        index = self._used(choices)
        kind = choices.below(10)
        payload = choices.take(choices.below(48))
        self._insert(index, struct.pack("<BI", kind, len(payload)) + payload)

    def _replace_table(self, index: int, descriptor: bytes) -> None:
        """Puts a descriptor where the extent table was, and ends the page with it."""
        for offset, _ in self._descriptors(index):
            if self.image[offset] in {1, 5}:
                end = self.base.offset(index) + PAGE - 8
                self._put(offset, descriptor.ljust(end - offset, b"\0")[: end - offset])
                self._seal(index)
                return

    def _extent_table(self, choices: ByteChoices) -> None:
        """A table with a size of its own: mostly a huge number of clusters in one run."""
        clusters = self._number(choices, 8)
        entries = b""
        for _ in range(choices.below(4)):
            entries += struct.pack("<II", choices.one_of([0, *self.pages]), choices.below(3))
        if choices.below(2):
            missing = -(-clusters // 512) & 0xFFFFFFFF
            entries += struct.pack("<II", 0, missing)
        payload = struct.pack("<Q", clusters) + entries
        self._replace_table(self._used(choices), struct.pack("<BI", 5, len(payload)) + payload)

    def _runs(self, choices: ByteChoices) -> None:
        """Run-length extents of old stores."""
        index = self._used(choices)
        payload = b""
        for _ in range(1 + choices.below(4)):
            payload += struct.pack("<II", self._number(choices, 4), self._number(choices, 4))
        self._replace_table(index, struct.pack("<BI", 1, len(payload)) + payload)
        for offset, length in self._descriptors(index):
            if self.image[offset] == 3 and length == 24:
                self._put(offset + 5, struct.pack("<Q", choices.below(16)))
                self._seal(index)

    def _flip(self, choices: ByteChoices) -> None:
        """A bit that nobody has made a checksum for."""
        index = self._used(choices)
        place = self.base.offset(index) + choices.below(PAGE)
        self.image[place] ^= 1 << choices.below(8)
        if choices.below(2):
            self._seal(index)

    def _clean(self, choices: ByteChoices) -> None:
        self._put(16, struct.pack("<I", choices.below(3)))
        self._seal(None)

    def _truncate(self, choices: ByteChoices) -> None:
        near = [0, 1, 4095, 4096, 8192, len(self.image), self.base.size - 1, self.base.size * 2]
        self.size = choices.one_of(near)
