"""What SPDK makes of a store after a crash: its load, replay and repair, for tests alone.

Written from the description of the format, and sharing no code with lvolfs. Where SPDK would
refuse the store, lose an lvol, or go on with a cluster that two lvols own, this raises
NotRecoverableError.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tests.spdk_reader import page_crc

PAGE = 4096
NONE = 0xFFFFFFFF
NO_BLOB = (1 << 64) - 1
ZEROS = bytes(PAGE)
CLUSTERS_PER_EXTENT = 512
FLAGS_INVALID, FLAGS_DATA_RO, FLAGS_MD_RO = 0xF, 0x1, 0x3
THIN, INTERNAL, TABLE, EXTERNAL = 1, 2, 4, 8


class NotRecoverableError(AssertionError):
    pass


def demand(condition: object, text: str) -> None:
    if not condition:
        raise NotRecoverableError(text)


@dataclass(frozen=True)
class Page:
    """A metadata page with a right checksum."""

    id: int
    sequence: int
    next: int
    # (type, payload)
    descriptors: tuple[tuple[int, bytes], ...]


_crc = lru_cache(maxsize=256)(page_crc)


@lru_cache(maxsize=4096)
def parse_page(raw: bytes) -> Page | None:
    """None when the checksum is wrong."""
    next_, crc = struct.unpack_from("<II", raw, 4088)
    if crc != page_crc(raw):
        return None
    blob_id, sequence = struct.unpack_from("<QI", raw)
    descriptors = []
    at = 16
    while at + 5 <= 16 + 4072:
        kind, length = struct.unpack_from("<BI", raw, at)
        if kind == 0 and length == 0:
            break
        demand(at + 5 + length <= 16 + 4072, f"descriptor {kind} goes over the end of its page")
        descriptors.append((kind, raw[at + 5 : at + 5 + length]))
        at += 5 + length
    return Page(blob_id, sequence, next_, tuple(descriptors))


@dataclass
class Blob:
    id: int
    chain: list[int] = field(default_factory=list)
    flags: tuple[int, int, int] = (0, 0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    internal: dict[str, bytes] = field(default_factory=dict)
    extent_pages: list[int] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)
    # as the extent table tells, None without one
    table_clusters: int | None = None

    def link(self, name: str) -> int | None:
        value = self.internal.get(name)
        if value is None:
            return None
        demand(len(value) == 8, f"{name} of blob {self.id:#x} has {len(value)} bytes")
        return int.from_bytes(value, "little")

    @property
    def name(self) -> str:
        demand("name" in self.xattrs, f"blob {self.id:#x} has no name")
        return self.xattrs["name"].split(b"\0")[0].decode()


class RecoveredStore:
    """image: the whole device, which must not change while this is in use. externals: content
    of each external snapshot by id."""

    def __init__(
        self, image: bytes | bytearray | mmap.mmap, externals: Mapping[str, bytes]
    ) -> None:
        self._image = image
        self._externals = externals
        self._read_superblock()
        self.replayed = not (self.clean == 1 and self.blobid_mask[1])
        if self.replayed:
            roots, self._masked_pages, self._masked_clusters = self._replay()
        else:
            self._masked_pages = self._mask(0, *self.page_mask, self.md_len)
            self._masked_clusters = self._mask(1, *self.cluster_mask, self.total)
            roots = self._mask(2, *self.blobid_mask, self.md_len)
        self.blobs = {1 << 32 | root: self._load_blob(root) for root in sorted(roots)}
        self._finish_snapshot_operations()
        self._check_owners()

    # -- superblock and masks

    def _read_superblock(self) -> None:
        page = bytes(self._image[:PAGE])
        demand(page[:8] == b"SPDKBLOB", "no superblock")
        version, length, self.clean, self.super_blob, self.cluster_size = struct.unpack_from(
            "<IIIQI", page, 8
        )
        demand(1 <= version <= 3, f"superblock version {version}")
        demand(length == PAGE, f"superblock length {length}")
        (crc,) = struct.unpack_from("<I", page, 4092)
        demand(crc == _crc(page), "the superblock's checksum is wrong")
        self.page_mask = struct.unpack_from("<II", page, 32)
        self.cluster_mask = struct.unpack_from("<II", page, 40)
        self.md_start, self.md_len = struct.unpack_from("<II", page, 48)
        demand(page[56:72].rstrip(b"\0") == b"LVOLSTORE", "bstype is not LVOLSTORE")
        self.blobid_mask = struct.unpack_from("<II", page, 72)
        size, _, slot = struct.unpack_from("<QII", page, 80)
        self.slot = slot or PAGE
        demand(size <= len(self._image), f"the store has {size} bytes, the device less")
        self.total = size // self.cluster_size
        self.md_clusters = -(-(self.md_start + self.md_len) * self.slot // self.cluster_size)

    def _mask(self, kind: int, start: int, slots: int, bits: int) -> set[int]:
        at = start * self.slot
        region = bytes(self._image[at : at + slots * self.slot])
        stored, length = struct.unpack_from("<BI", region)
        demand(stored == kind, f"mask {kind} has type {stored}")
        demand(length == bits or (kind == 1 and length > bits), f"mask {kind} has {length} bits")
        value = int.from_bytes(region[5 : 5 + -(-bits // 8)], "little")
        return {bit for bit in range(bits) if value >> bit & 1}

    def _raw(self, index: int) -> bytes:
        demand(index < self.md_len, f"metadata page {index} is past the end")
        at = (self.md_start + index) * self.slot
        return self._image[at : at + PAGE]

    # -- replay

    def _replay(self) -> tuple[set[int], set[int], set[int]]:
        """The blob ids, pages and clusters that it finds in use."""
        roots: set[int] = set()
        pages: set[int] = set()
        clusters = set(range(self.md_clusters))
        extents: list[int] = []
        for index in range(self.md_len):
            if index in pages:
                continue
            raw = self._raw(index)
            if raw == ZEROS:
                continue
            page = parse_page(bytes(raw))
            if page is None or page.sequence or page.id != (1 << 32 | index):
                continue
            roots.add(index)
            at = index
            while page is not None:
                pages.add(at)
                self._replay_page(page, clusters, extents)
                at = page.next
                if at == NONE:
                    break
                # By the checksum alone; one that is wrong ends the chain without a word.
                page = parse_page(bytes(self._raw(at)))
        for index in extents:
            page = parse_page(bytes(self._raw(index)))
            demand(
                page is not None and page.sequence == 0 and [d[0] for d in page.descriptors] == [6],
                f"metadata page {index} is no extent page: the load fails",
            )
            assert page is not None
            pages.add(index)
            payload = page.descriptors[0][1]
            clusters.update(
                filter(None, struct.unpack_from(f"<{len(payload) // 4 - 1}I", payload, 4))
            )
        return roots, pages, clusters

    def _replay_page(self, page: Page, clusters: set[int], extents: list[int]) -> None:
        for kind, payload in page.descriptors:
            demand(kind in {0, 1, 2, 3, 4, 5, 7}, f"descriptor {kind}: the load fails")
            if kind == 1:
                for first, run in struct.iter_unpack("<II", payload):
                    if first:
                        clusters.update(range(first, first + run))
            elif kind == 5:
                extents += [first for first, _ in struct.iter_unpack("<II", payload[8:]) if first]

    # -- blobs

    def _page(self, index: int, what: str) -> Page:
        page = parse_page(bytes(self._raw(index)))
        demand(page is not None, f"metadata page {index}, {what}, has a wrong checksum")
        assert page is not None
        return page

    def _load_blob(self, root: int) -> Blob:
        blob = Blob(1 << 32 | root)
        what = f"of blob {blob.id:#x}"
        rle: list[int] = []
        index = root
        while index != NONE:
            demand(index not in blob.chain, f"the chain {what} is a loop")
            page = self._page(index, what)
            demand(
                (page.id, page.sequence) == (blob.id, len(blob.chain)),
                f"metadata page {index}, {what}, is page {page.sequence} of {page.id:#x}",
            )
            blob.chain.append(index)
            for kind, payload in page.descriptors:
                self._take(blob, rle, kind, payload)
            index = page.next
        invalid, data_ro, md_ro = blob.flags
        demand(
            not (invalid & ~FLAGS_INVALID or data_ro & ~FLAGS_DATA_RO or md_ro & ~FLAGS_MD_RO),
            f"unknown flags {what}",
        )
        demand(bool(invalid & INTERNAL) == bool(blob.internal), f"internal xattr flag {what}")
        demand(bool(invalid & EXTERNAL) == ("EXTSNAP" in blob.internal), f"esnap flag {what}")
        demand(bool(invalid & TABLE) == (blob.table_clusters is not None), f"table flag {what}")
        blob.clusters = rle if blob.table_clusters is None else self._extents(blob, what)
        demand(
            invalid & THIN or all(blob.clusters), f"a cluster {what}, which is thick, is missing"
        )
        for cluster in filter(None, blob.clusters):
            demand(cluster in self._masked_clusters, f"cluster {cluster} {what} is marked free")
        return blob

    def _take(self, blob: Blob, rle: list[int], kind: int, payload: bytes) -> None:
        if kind == 3:
            blob.flags = struct.unpack("<QQQ", payload)
        elif kind in {2, 4}:
            name_length, value_length = struct.unpack_from("<HH", payload)
            demand(len(payload) == 4 + name_length + value_length, "an xattr's lengths are wrong")
            target = blob.xattrs if kind == 2 else blob.internal
            target[payload[4 : 4 + name_length].decode()] = payload[4 + name_length :]
        elif kind == 5:
            (count,) = struct.unpack_from("<Q", payload)
            demand(blob.table_clusters in {None, count}, "two sizes in one extent table")
            blob.table_clusters = count
            for first, run in struct.iter_unpack("<II", payload[8:]):
                demand(first == 0 or run == 1, "a run of extent pages")
                blob.extent_pages += [first] * run
        elif kind == 1:
            for first, run in struct.iter_unpack("<II", payload):
                rle += range(first, first + run) if first else [0] * run

    def _extents(self, blob: Blob, what: str) -> list[int]:
        count = blob.table_clusters or 0
        demand(len(blob.extent_pages) == -(-count // CLUSTERS_PER_EXTENT), f"extent table {what}")
        clusters: list[int] = []
        for index in blob.extent_pages:
            entries = min(CLUSTERS_PER_EXTENT, count - len(clusters))
            if index == 0:
                clusters += [0] * entries
                continue
            page = self._page(index, f"an extent page {what}")
            demand(
                page.next == NONE and [d[0] for d in page.descriptors] == [6],
                f"metadata page {index}, an extent page {what}, holds something else",
            )
            payload = page.descriptors[0][1]
            (start,) = struct.unpack_from("<I", payload)
            demand(start == len(clusters), f"extent page {index} {what} begins at {start}")
            demand(
                len(payload) == 4 + 4 * entries, f"extent page {index} {what} has another length"
            )
            clusters += struct.unpack_from(f"<{entries}I", payload, 4)
        return clusters

    # -- what is put right

    def _finish_snapshot_operations(self) -> None:
        """A snapshot with a marker stays if the blob named in it is its clone, and else goes
        without what it lists."""
        for blob in list(self.blobs.values()):
            marker = next((name for name in ("SNAPRM", "SNAPTMP") if name in blob.internal), None)
            if marker is None:
                continue
            other = self.blobs.get(blob.link(marker) or 0)
            demand(other is not None, f"{marker} of blob {blob.id:#x} names nobody")
            assert other is not None
            if other.link("SNAP") == blob.id:
                for name in ("SNAPRM", "SNAPTMP"):
                    blob.internal.pop(name, None)
                blob.flags = (blob.flags[0], blob.flags[1] | 1, blob.flags[2])
            else:
                del self.blobs[blob.id]

    def _check_owners(self) -> None:
        pages: dict[int, int] = {}
        clusters = dict.fromkeys(range(self.md_clusters), self.super_blob)
        for blob in self.blobs.values():
            for page in [*blob.chain, *filter(None, blob.extent_pages)]:
                other = pages.setdefault(page, blob.id)
                demand(other == blob.id, f"page {page} is used by {other:#x} and {blob.id:#x}")
            demand(not set(blob.chain) & set(blob.extent_pages), "a page is in chain and table")
            for cluster in filter(None, blob.clusters):
                demand(cluster < self.total, f"cluster {cluster} is past the end")
                demand(
                    cluster not in clusters,
                    f"cluster {cluster} is used by {clusters.get(cluster, 0):#x} and {blob.id:#x}",
                )
                clusters[cluster] = blob.id
            parent = blob.link("SNAP")
            demand(
                parent is None or (parent in self.blobs and self.blobs[parent].flags[1] & 1),
                f"the parent of {blob.id:#x} is not there, or can be written to",
            )
        demand(self.super_blob in self.blobs, "the store's own blob is missing")
        demand(
            self.replayed or self._masked_pages == pages.keys(),
            "the page mask is not what the blobs use",
        )
        demand(
            self.replayed or self._masked_clusters == clusters.keys(),
            "the cluster mask is not what the blobs use",
        )
        names = [blob.name for blob in self.lvols()]
        demand(len(names) == len(set(names)), f"a name is there twice: {sorted(names)}")

    # -- what it shows

    def lvols(self) -> Iterator[Blob]:
        return (blob for blob in self.blobs.values() if blob.id != self.super_blob)

    def read(self, blob: Blob, clusters: range) -> bytes:
        size = self.cluster_size
        parts = []
        for index in clusters:
            where, external = self._resolve(blob, index)
            if where:
                parts.append(self._image[where * size : (where + 1) * size])
            elif external is not None:
                content = self._externals[external]
                parts.append(content[index * size : (index + 1) * size].ljust(size, b"\0"))
            else:
                parts.append(bytes(size))
        return b"".join(parts)

    def _resolve(self, blob: Blob, index: int) -> tuple[int, str | None]:
        for _ in range(len(self.blobs) + 1):
            if index >= len(blob.clusters):
                return 0, None
            if blob.clusters[index]:
                return blob.clusters[index], None
            external = blob.internal.get("EXTSNAP")
            if external is not None:
                return 0, external.split(b"\0")[0].decode()
            parent = blob.link("SNAP")
            if parent is None:
                return 0, None
            blob = self.blobs[parent]
        raise NotRecoverableError(f"the parents of blob {blob.id:#x} are a loop")
