"""The three bit masks that a cleanly closed store carries: used metadata pages, used
clusters, and the first pages of blobs. They have no checksum, so they are never believed
without being compared with what the blobs themselves say."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum

from lvolfs.blobstore.errors import FormatError

_HEADER = struct.Struct("<BI")
_DIGITS = bytes.maketrans(b"\0\1", b"01")


class MaskKind(IntEnum):
    PAGES = 0
    CLUSTERS = 1
    BLOB_IDS = 2

    @property
    def title(self) -> str:
        return {0: "used page mask", 1: "used cluster mask", 2: "blob id mask"}[self]


def parse_mask(region: bytes, kind: MaskKind, bits: int) -> bytes:
    """The bits of a mask, LSB first, ceil(bits / 8) bytes; bits past the end are cleared.

    A cluster mask may be longer than the store (it is cut), the others may not.
    """
    if len(region) < _HEADER.size:
        raise FormatError(kind.title, f"only {len(region)} bytes")
    stored_kind, length = _HEADER.unpack_from(region)
    if stored_kind != kind:
        raise FormatError(kind.title, f"type is {stored_kind}, not {int(kind)}")
    if length < bits or (length > bits and kind is not MaskKind.CLUSTERS):
        raise FormatError(kind.title, f"length is {length} bits, not {bits}")
    size = -(-bits // 8)
    if len(region) < _HEADER.size + size:
        raise FormatError(kind.title, f"{bits} bits do not fit its {len(region)} bytes")
    data = bytearray(region[_HEADER.size : _HEADER.size + size])
    if bits % 8:
        data[-1] &= (1 << bits % 8) - 1
    return bytes(data)


def pack_mask(kind: MaskKind, bits: int, data: bytes, region_size: int) -> bytes:
    """The whole region of a mask, zero padded to `region_size` bytes."""
    packed = _HEADER.pack(kind, bits) + data
    if len(packed) > region_size:
        raise FormatError(kind.title, f"{bits} bits do not fit {region_size} bytes")
    return packed.ljust(region_size, b"\0")


def bits_set(data: bytes) -> Iterator[int]:
    """Indices of the bits that are set, ascending."""
    for position, byte in enumerate(data):
        if byte:
            for bit in range(8):
                if byte >> bit & 1:
                    yield position * 8 + bit


def bits_of(items: Iterable[int], length: int) -> bytes:
    """A mask of `length` bits with the given ones set."""
    data = bytearray(-(-length // 8))
    for item in items:
        data[item // 8] |= 1 << item % 8
    return bytes(data)


def bits_where(flags: Sequence[int]) -> bytes:
    """A mask with a bit for each item, set where that is not 0. Made for millions."""
    digits = bytes(map(bool, reversed(flags))).translate(_DIGITS)
    return int(digits or b"0", 2).to_bytes(-(-len(flags) // 8), "little")
