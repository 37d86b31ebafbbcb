"""A second reader of SPDK's on-disk format, for tests alone.

It shares no code with lvolfs, so that a mistake in the writer and one in the reader cannot
hide each other. It is slow, and believes nothing: whatever breaks the format is an AssertionError.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096
NONE = 0xFFFFFFFF


def _make_table():
    table = []
    for i in range(256):
        c = i
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 & -(c & 1))
        table.append(c)
    return table


_TABLE = _make_table()


# of two bytes at once
_TWO = [
    _TABLE[(_TABLE[pair & 255] ^ pair >> 8) & 255] ^ _TABLE[pair & 255] >> 8
    for pair in range(1 << 16)
]


def page_crc(page):
    c = 0xFFFFFFFF
    for (pair,) in struct.iter_unpack("<H", page[:4092]):
        c = _TWO[(c ^ pair) & 0xFFFF] ^ c >> 16
    return c ^ 0xFFFFFFFF


@dataclass
class SpdkBlob:
    id: int
    chain: list = field(default_factory=list)
    flags: tuple = (0, 0, 0)
    xattrs: dict = field(default_factory=dict)
    internal: dict = field(default_factory=dict)
    extent_pages: list = field(default_factory=list)
    clusters: list = field(default_factory=list)
    checksums: bytes = b""
    uses_table: bool = False
    uses_rle: bool = False

    @property
    def name(self):
        return self.xattrs["name"].split(b"\0")[0].decode()

    @property
    def thin(self):
        return bool(self.flags[0] & 1)

    @property
    def read_only(self):
        return bool(self.flags[1] & 1)

    @property
    def parent_id(self):
        value = self.internal.get("SNAP")
        return None if value is None else struct.unpack("<Q", value)[0]


class SpdkStore:
    """An image as the format document says it is to be read."""

    def __init__(self, path):
        self.path = Path(path)
        self.file = self.path.open("rb")
        sb = self._at(0, PAGE)
        assert sb[:8] == b"SPDKBLOB"
        (self.version, length, self.clean, self.super_blob, self.cluster_size) = struct.unpack_from(
            "<IIIQI", sb, 8
        )
        self.page_mask, self.page_mask_len = struct.unpack_from("<II", sb, 32)
        self.cluster_mask, self.cluster_mask_len = struct.unpack_from("<II", sb, 40)
        self.md_start, self.md_len = struct.unpack_from("<II", sb, 48)
        self.bstype = sb[56:72].rstrip(b"\0")
        self.blobid_mask, self.blobid_mask_len = struct.unpack_from("<II", sb, 72)
        self.size, self.io_unit, self.pg = struct.unpack_from("<QII", sb, 80)
        assert length == PAGE
        assert struct.unpack_from("<I", sb, 4092)[0] == page_crc(sb)
        assert self.bstype == b"LVOLSTORE"
        self.pg = self.pg or PAGE
        self.total = self.size // self.cluster_size
        self.md_clusters = -(-(self.md_start + self.md_len) * self.pg // self.cluster_size)
        self.blobs = {}
        for index in self._roots():
            blob = self._blob(index)
            self.blobs[blob.id] = blob

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _at(self, offset, length):
        self.file.seek(offset)
        data = self.file.read(length)
        assert len(data) == length
        return data

    def raw_page(self, index):
        assert index < self.md_len
        return self._at((self.md_start + index) * self.pg, PAGE)

    def page(self, index):
        page = self.raw_page(index)
        assert struct.unpack_from("<I", page, 4092)[0] == page_crc(page), f"page {index}"
        return page

    # -- masks

    def mask(self, kind, start, slots, bits):
        region = self._at(start * self.pg, slots * self.pg)
        stored, length = struct.unpack_from("<BI", region)
        assert (stored, length) == (kind, bits)
        return {i for i in range(bits) if region[5 + i // 8] >> i % 8 & 1}

    def masks(self):
        """(pages, clusters, blob ids) that are marked."""
        return (
            self.mask(0, self.page_mask, self.page_mask_len, self.md_len),
            self.mask(1, self.cluster_mask, self.cluster_mask_len, self.total),
            self.mask(2, self.blobid_mask, self.blobid_mask_len, self.md_len),
        )

    def _roots(self):
        if self.clean == 1:
            return sorted(self.masks()[2])
        found = []
        for index in range(self.md_len):
            page = self.raw_page(index)
            blob_id, sequence = struct.unpack_from("<QI", page)
            if blob_id == (1 << 32 | index) and sequence == 0 and any(page):
                assert struct.unpack_from("<I", page, 4092)[0] == page_crc(page)
                found.append(index)
        return found

    # -- blobs

    def _blob(self, index):
        blob = SpdkBlob(1 << 32 | index)
        order = []
        num_clusters = None
        while True:
            page = self.page(index)
            blob_id, sequence = struct.unpack_from("<QI", page)
            assert (blob_id, sequence) == (blob.id, len(blob.chain))
            blob.chain.append(index)
            offset = 16
            while offset + 5 <= 16 + 4072:
                kind, length = struct.unpack_from("<BI", page, offset)
                if kind == 0 and length == 0:
                    break
                body = page[offset + 5 : offset + 5 + length]
                assert offset + 5 + length <= 16 + 4072
                offset += 5 + length
                order.append(kind)
                if kind == 3:
                    blob.flags = struct.unpack("<QQQ", body)
                elif kind in (2, 4):
                    n, v = struct.unpack_from("<HH", body)
                    assert length == 4 + n + v
                    target = blob.xattrs if kind == 2 else blob.internal
                    target[body[4 : 4 + n].decode()] = body[4 + n :]
                elif kind == 5:
                    blob.uses_table = True
                    (count,) = struct.unpack_from("<Q", body)
                    assert num_clusters in (None, count)
                    num_clusters = count
                    for entry in range(8, length, 8):
                        first, run = struct.unpack_from("<II", body, entry)
                        assert first == 0 or run == 1
                        blob.extent_pages += [first] * run
                elif kind == 1:
                    blob.uses_rle = True
                    assert length > 0
                    for entry in range(0, length, 8):
                        first, run = struct.unpack_from("<II", body, entry)
                        assert run > 0
                        blob.clusters += list(range(first, first + run)) if first else [0] * run
                elif kind == 7:
                    assert length > 0
                    assert length % 12 == 0
                    blob.checksums += body
                else:
                    raise AssertionError(f"descriptor {kind} in a chain")
            (index,) = struct.unpack_from("<I", page, 4088)
            if index == NONE:
                break
        # flags, xattrs, internal xattrs, extents, checksums: in this order
        ranks = [{3: 0, 2: 1, 4: 2, 1: 3, 5: 3, 7: 4}[kind] for kind in order]
        assert ranks == sorted(ranks)
        assert order[0] == 3
        assert blob.uses_table != blob.uses_rle or not blob.clusters
        assert bool(blob.flags[0] & 4) == blob.uses_table
        assert bool(blob.flags[0] & 2) == bool(blob.internal)
        assert bool(blob.flags[0] & 8) == ("EXTSNAP" in blob.internal)
        if blob.uses_table:
            self._extents(blob, num_clusters)
        assert blob.thin or all(blob.clusters)
        return blob

    def _extents(self, blob, num_clusters):
        assert len(blob.extent_pages) == -(-num_clusters // 512)
        for entry, index in enumerate(blob.extent_pages):
            count = min(512, num_clusters - 512 * entry)
            if index == 0:
                blob.clusters += [0] * count
                continue
            page = self.page(index)
            kind, length = struct.unpack_from("<BI", page, 16)
            (start,) = struct.unpack_from("<I", page, 21)
            assert struct.unpack_from("<I", page, 8)[0] == 0
            assert struct.unpack_from("<I", page, 4088)[0] == NONE
            assert (kind, length, start) == (6, 4 + 4 * count, 512 * entry)
            blob.clusters += struct.unpack_from(f"<{count}I", page, 25)

    # -- what it means

    def lvols(self):
        return {b.name: b for i, b in self.blobs.items() if i != self.super_blob}

    def content(self, blob, external=b""):
        out = bytearray()
        for index in range(len(blob.clusters)):
            out += self._cluster(blob, index, external)
        return bytes(out)

    def _cluster(self, blob, index, external):
        size = self.cluster_size
        while True:
            if index >= len(blob.clusters):
                return bytes(size)
            if blob.clusters[index]:
                return self._at(blob.clusters[index] * size, size)
            if "EXTSNAP" in blob.internal:
                return external[index * size : (index + 1) * size].ljust(size, b"\0")
            if blob.parent_id is None:
                return bytes(size)
            blob = self.blobs[blob.parent_id]

    def assert_consistent(self):
        """Nothing owned twice, parents in order, and masks that say what is reachable."""
        pages, clusters = [], list(range(self.md_clusters))
        for blob in self.blobs.values():
            pages += blob.chain + [page for page in blob.extent_pages if page]
            clusters += [c for c in blob.clusters if c]
            assert not {"SNAPTMP", "SNAPRM"} & set(blob.internal)
            seen = set()
            node = blob
            while node.parent_id is not None:
                assert node.id not in seen
                seen.add(node.id)
                node = self.blobs[node.parent_id]
                assert node.read_only
        assert len(pages) == len(set(pages))
        assert len(clusters) == len(set(clusters))
        assert all(c < self.total for c in clusters)
        if self.clean == 1:
            masked_pages, masked_clusters, masked_ids = self.masks()
            assert masked_pages == set(pages)
            assert masked_clusters == set(clusters)
            assert masked_ids == {i & 0xFFFFFFFF for i in self.blobs}
