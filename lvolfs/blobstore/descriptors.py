"""Descriptors: the type-length-value records inside metadata pages.

A blob's chain holds, in this order: flags, external xattrs, internal xattrs, the extent table
(or, in old stores, run-length encoded extents), and the checksum records of Longhorn's fork.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.extents import CLUSTERS_PER_EXTENT, Run
from lvolfs.blobstore.metadata_page import DESCRIPTORS_SIZE, Chain
from lvolfs.blobstore.superblock import MAX_CLUSTERS

# name and value of an xattr have to fit one page together with its two headers
XATTR_ROOM = DESCRIPTORS_SIZE - 9

_HEADER = struct.Struct("<BI")
_XATTR = struct.Struct("<HH")
_FLAGS = struct.Struct("<QQQ")
_U64 = struct.Struct("<Q")
_PAIR = struct.Struct("<II")
CHECKSUM_RECORD = struct.Struct("<QI")


class DescriptorType(IntEnum):
    PADDING = 0
    EXTENT_RLE = 1
    XATTR = 2
    FLAGS = 3
    XATTR_INTERNAL = 4
    EXTENT_TABLE = 5
    EXTENT_PAGE = 6
    CHECKSUM = 7


class Invalid:
    """A reader that does not know one of these must not open the blob."""

    THIN = 1
    INTERNAL_XATTR = 2
    EXTENT_TABLE = 4
    EXTERNAL_SNAPSHOT = 8
    KNOWN = 15


class DataReadOnly:
    """A reader that does not know one of these must not change data or metadata."""

    READ_ONLY = 1
    KNOWN = 1


class MetadataReadOnly:
    """A reader that does not know one of these must not change metadata."""

    CLEAR_METHOD = 3
    KNOWN = 3


@dataclass
class BlobMetadata:
    """What a blob's chain says apart from where its clusters are."""

    invalid: int = Invalid.EXTENT_TABLE
    data_ro: int = 0
    md_ro: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    internal: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> "BlobMetadata":
        return BlobMetadata(
            self.invalid, self.data_ro, self.md_ro, dict(self.xattrs), dict(self.internal)
        )

    def pack_head(self) -> bytes:
        """All descriptors that come before the extent table, in SPDK's order."""
        invalid = self.invalid & ~Invalid.INTERNAL_XATTR
        if self.internal:
            invalid |= Invalid.INTERNAL_XATTR
        head = bytearray(_HEADER.pack(DescriptorType.FLAGS, _FLAGS.size))
        head += _FLAGS.pack(invalid, self.data_ro, self.md_ro)
        for kind, xattrs in (
            (DescriptorType.XATTR, self.xattrs),
            (DescriptorType.XATTR_INTERNAL, self.internal),
        ):
            for name, value in xattrs.items():
                head += _pack_xattr(kind, name, value)
        return bytes(head)


def encode_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def xattr_size(name: str, value: bytes) -> int:
    """Bytes of XATTR_ROOM that an xattr takes."""
    return len(encode_name(name)) + len(value)


def _pack_xattr(kind: DescriptorType, name: str, value: bytes) -> bytes:
    raw = encode_name(name)
    payload = _XATTR.pack(len(raw), len(value)) + raw + value
    return _HEADER.pack(kind, len(payload)) + payload


@dataclass
class ParsedBlob:
    """A blob's chain, understood; with `damage` set, only as far as it was."""

    metadata: BlobMetadata = field(default_factory=BlobMetadata)
    num_clusters: int = 0
    rle: bool = False
    # run-length encoded extents that own anything
    runs: list[Run] = field(default_factory=list)
    # the metadata page of each extent that has one
    extent_pages: dict[int, int] = field(default_factory=dict)
    checksums: bytes = b""
    unknown_types: set[int] = field(default_factory=set)
    damage: str | None = None


def walk(area: bytes, subject: str) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each descriptor in a page's descriptor area."""
    offset = 0
    while offset + _HEADER.size <= len(area):
        kind, length = _HEADER.unpack_from(area, offset)
        if kind == DescriptorType.PADDING and length == 0:
            return
        start = offset + _HEADER.size
        if length > len(area) - start:
            raise FormatError(subject, f"a descriptor of type {kind} runs past its page")
        yield kind, area[start : start + length]
        offset = start + length


def parse_blob(chain: Chain, total_clusters: int) -> ParsedBlob:
    """Understands a chain; total_clusters are the store's. Never raises: what is wrong ends up
    in `damage`, and what was read before it stays, so that the pages and clusters it names
    can be kept from reuse."""
    blob = ParsedBlob()
    parser = _ChainParser(blob, total_clusters)
    try:
        for page, index in zip(chain.pages, chain.indices, strict=True):
            for kind, payload in walk(page.descriptors, f"metadata page {index}"):
                parser.feed(kind, payload, f"metadata page {index}")
        if chain.damage is None:
            parser.finish()
    except FormatError as error:
        blob.damage = str(error)
    blob.damage = chain.damage or blob.damage
    return blob


class _ChainParser:
    def __init__(self, blob: ParsedBlob, total_clusters: int) -> None:
        self.blob = blob
        self.total_clusters = total_clusters
        self.seen_table = False
        self.table_clusters = 0
        # extents that the table has said something about
        self.listed = 0

    def feed(self, kind: int, payload: bytes, subject: str) -> None:
        match kind:
            case DescriptorType.PADDING:
                pass
            case DescriptorType.FLAGS:
                self._flags(payload, subject)
            case DescriptorType.XATTR:
                self._xattr(self.blob.metadata.xattrs, payload, subject)
            case DescriptorType.XATTR_INTERNAL:
                self._xattr(self.blob.metadata.internal, payload, subject)
            case DescriptorType.EXTENT_TABLE:
                self._table(payload, subject)
            case DescriptorType.EXTENT_RLE:
                self._rle(payload, subject)
            case DescriptorType.EXTENT_PAGE:
                raise FormatError(subject, "an extent page stands inside a chain")
            case DescriptorType.CHECKSUM:
                if not payload or len(payload) % CHECKSUM_RECORD.size:
                    raise FormatError(subject, f"checksum records of {len(payload)} bytes")
                self.blob.checksums += payload
            case _:
                self.blob.unknown_types.add(kind)

    def finish(self) -> None:
        blob = self.blob
        unknown = blob.metadata.invalid & ~Invalid.KNOWN
        if unknown:
            raise FormatError("its flags", f"{unknown:#x} are not known, and may not be ignored")
        subject = "its extent table"
        if self.seen_table:
            wanted = -(-self.table_clusters // CLUSTERS_PER_EXTENT)
            if self.listed != wanted:
                raise FormatError(subject, f"lists {self.listed} extent pages instead of {wanted}")
            if not blob.metadata.invalid & Invalid.EXTENT_TABLE:
                raise FormatError(subject, "is there, but the flag that announces it is not")
        else:
            blob.rle = not blob.metadata.invalid & Invalid.EXTENT_TABLE

    def _flags(self, payload: bytes, subject: str) -> None:
        if len(payload) != _FLAGS.size:
            raise FormatError(subject, f"flags of {len(payload)} bytes")
        metadata = self.blob.metadata
        metadata.invalid, metadata.data_ro, metadata.md_ro = _FLAGS.unpack(payload)

    @staticmethod
    def _xattr(xattrs: dict[str, bytes], payload: bytes, subject: str) -> None:
        if len(payload) < _XATTR.size:
            raise FormatError(subject, f"an xattr of {len(payload)} bytes")
        name_length, value_length = _XATTR.unpack_from(payload)
        if _XATTR.size + name_length + value_length != len(payload):
            raise FormatError(subject, "the lengths in an xattr do not add up")
        split = _XATTR.size + name_length
        # of two with one name SPDK finds the first
        xattrs.setdefault(decode_name(payload[_XATTR.size : split]), payload[split:])

    def _table(self, payload: bytes, subject: str) -> None:
        blob = self.blob
        if blob.num_clusters and not self.seen_table:
            raise FormatError(subject, "both run-length extents and an extent table")
        if len(payload) < _U64.size or (len(payload) - _U64.size) % _PAIR.size:
            raise FormatError(subject, f"an extent table of {len(payload)} bytes")
        (num_clusters,) = _U64.unpack_from(payload)
        if self.seen_table and num_clusters != self.table_clusters:
            raise FormatError(subject, "parts of the extent table disagree about the size")
        if num_clusters > MAX_CLUSTERS:
            raise FormatError(subject, f"{num_clusters} clusters; {MAX_CLUSTERS} are supported")
        self.seen_table = True
        self.table_clusters = blob.num_clusters = num_clusters
        wanted = -(-num_clusters // CLUSTERS_PER_EXTENT)
        for page, count in _PAIR.iter_unpack(payload[_U64.size :]):
            if page and count != 1:
                raise FormatError(subject, f"extent page {page} is listed {count} times at once")
            if not 0 < count <= wanted - self.listed:
                raise FormatError(subject, "the extent table lists more than the blob has")
            if page:
                blob.extent_pages[self.listed] = page
            self.listed += count

    def _rle(self, payload: bytes, subject: str) -> None:
        blob = self.blob
        if self.seen_table:
            raise FormatError(subject, "both run-length extents and an extent table")
        if not payload or len(payload) % _PAIR.size:
            raise FormatError(subject, f"run-length extents of {len(payload)} bytes")
        for first, count in _PAIR.iter_unpack(payload):
            if blob.num_clusters + count > MAX_CLUSTERS:
                raise FormatError(subject, f"more than {MAX_CLUSTERS} clusters are not supported")
            if first + count > self.total_clusters and first:
                raise FormatError(
                    subject, f"clusters {first} to {first + count - 1} are past the end"
                )
            if first and count:
                blob.runs.append((blob.num_clusters, first, count))
            blob.num_clusters += count
