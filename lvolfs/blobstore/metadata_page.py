"""Metadata pages and the chains that they form."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from lvolfs.blobstore.extents import EXTENT_BYTES

PAGE = 4096
NO_PAGE = 0xFFFFFFFF
DESCRIPTORS_OFFSET = 16
DESCRIPTORS_SIZE = 4072
EXTENT_PAGE_TYPE = 6

_HEADER = struct.Struct("<QII")
_NEXT = struct.Struct("<I")


@dataclass(frozen=True)
class MetadataPage:
    """One page whose CRC is right."""

    blob_id: int
    sequence: int
    next: int
    descriptors: bytes

    @property
    def is_extent_page(self) -> bool:
        return self.descriptors[0] == EXTENT_PAGE_TYPE

    def extent_clusters(self) -> bytes:
        """The 512 little-endian u32 of an extent page, as far as its length is possible."""
        length = int.from_bytes(self.descriptors[1:5], "little") - 4
        length = max(0, min(length, EXTENT_BYTES)) // 4 * 4
        return self.descriptors[9 : 9 + length].ljust(EXTENT_BYTES, b"\0")


def parse_page(page: bytes) -> MetadataPage:
    """The fields of a page of 4096 bytes; its CRC has been checked by whoever read it."""
    blob_id, sequence, _ = _HEADER.unpack_from(page)
    (following,) = _NEXT.unpack_from(page, PAGE - 8)
    end = DESCRIPTORS_OFFSET + DESCRIPTORS_SIZE
    return MetadataPage(blob_id, sequence, following, page[DESCRIPTORS_OFFSET:end])


def root_id(index: int) -> int:
    """The id of the blob whose chain begins at page `index`."""
    return (1 << 32) | index


def root_index(blob_id: int) -> int:
    return blob_id & 0xFFFFFFFF


@dataclass
class Chain:
    """The pages of a blob, root first, as far as they can be trusted. `broken`: the one at which
    that ends, if its own content is what is wrong."""

    blob_id: int
    indices: list[int] = field(default_factory=list)
    pages: list[MetadataPage] = field(default_factory=list)
    damage: str | None = None
    broken: int | None = None


def follow_chain(blob_id: int, md_len: int, fetch: Callable[[int], bytes | str]) -> Chain:
    """Collects a blob's pages. fetch: the bytes of a page, or what is wrong with it."""
    chain = Chain(blob_id)
    index = root_index(blob_id)
    seen: set[int] = set()
    while True:
        place = f"metadata page {index}"
        if index >= md_len:
            chain.damage = f"{place} is past the end of the metadata ({md_len} pages)"
            return chain
        if index in seen:
            chain.damage = f"{place} comes twice in the chain"
            return chain
        content = fetch(index)
        if isinstance(content, str):
            chain.damage = f"{place} {content}"
            chain.broken = index
            return chain
        page = parse_page(content)
        if page.blob_id != blob_id:
            chain.damage = f"{place} belongs to blob {page.blob_id:#x}"
            return chain
        if page.sequence != len(chain.pages):
            chain.damage = f"{place} is number {page.sequence}, not {len(chain.pages)}"
            return chain
        seen.add(index)
        chain.indices.append(index)
        chain.pages.append(page)
        if page.next == NO_PAGE:
            return chain
        index = page.next
