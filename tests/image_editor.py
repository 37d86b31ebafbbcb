"""Changes bytes of a store behind lvolfs's back, with right checksums where wanted."""

import struct
from pathlib import Path

from tests.spdk_reader import PAGE, SpdkStore, page_crc


class ImageEditor:
    def __init__(self, path):
        self.path = Path(path)
        with SpdkStore(path) as store:
            self.md_start, self.pg = store.md_start, store.pg
            self.cluster_size = store.cluster_size
            self.blobs = dict(store.blobs)
            self.lvols = store.lvols()

    def read(self, offset, length):
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset, data):
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def page_offset(self, index):
        return (self.md_start + index) * self.pg

    def edit_page(self, index, offset, data, *, seal=True):
        """Overwrites bytes of a metadata page; index None is the superblock."""
        at = 0 if index is None else self.page_offset(index)
        page = bytearray(self.read(at, PAGE))
        page[offset : offset + len(data)] = data
        if seal:
            page[4092:] = struct.pack("<I", page_crc(page))
        self.write(at, page)

    def edit_superblock(self, offset, data, *, seal=True):
        self.edit_page(None, offset, data, seal=seal)

    def mark_unclean(self):
        self.edit_superblock(16, bytes(4))

    def flip(self, offset, bit=0):
        byte = self.read(offset, 1)[0]
        self.write(offset, bytes([byte ^ 1 << bit]))

    def find(self, index, needle):
        """Offset of `needle` in a metadata page."""
        found = self.read(self.page_offset(index), PAGE).find(needle)
        assert found > 0
        return found

    def replace_in_page(self, index, old, new):
        assert len(old) == len(new)
        self.edit_page(index, self.find(index, old), new)

    def set_cluster(self, lvol, index, cluster):
        """Makes blob cluster `index` name another device cluster, in its extent page."""
        page = self.lvols[lvol].extent_pages[index // 512]
        self.edit_page(page, 25 + 4 * (index % 512), struct.pack("<I", cluster))

    def set_link(self, lvol, name, blob_id):
        """Changes the value of an internal xattr that is there (SNAP)."""
        root = self.lvols[lvol].chain[0]
        at = self.find(root, name.encode()) + len(name)
        self.edit_page(root, at, struct.pack("<Q", blob_id))


def runs(clusters):
    """(first, count) of each run, as EXTENT_RLE keeps them."""
    entries = []
    for cluster in clusters:
        if (
            entries
            and (cluster == 0) == (entries[-1][0] == 0)
            and cluster
            in (
                0,
                sum(entries[-1]),
            )
        ):
            entries[-1][1] += 1
        else:
            entries.append([cluster, 1])
    return entries


def to_run_length(image, name):
    """Rewrites an lvol's extent table as EXTENT_RLE; its extent pages become nobody's."""
    blob = image.lvols[name]
    root = blob.chain[0]
    table = struct.pack("<BI", 5, 8 + 8 * len(blob.extent_pages))
    at = image.find(root, table + struct.pack("<Q", len(blob.clusters)))
    entries = b"".join(struct.pack("<II", *entry) for entry in runs(blob.clusters))
    image.edit_page(root, at, bytes(13 + 8 * len(blob.extent_pages)))
    image.edit_page(root, at, struct.pack("<BI", 1, len(entries)) + entries)
    image.edit_page(root, 16 + 5, struct.pack("<Q", blob.flags[0] & ~4))
    image.mark_unclean()
