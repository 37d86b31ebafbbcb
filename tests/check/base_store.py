"""A store with one of everything that a check looks at, and the writing of pages into it."""

import random
import struct
from pathlib import Path

from lvolfs.lvstore.store import Lvstore
from tests.image_editor import ImageEditor
from tests.spdk_reader import page_crc

CLUSTER = 64 << 10
MIB = 1 << 20
PAGE = 4096
NO_PAGE = 0xFFFFFFFF
# descriptor types
RLE, XATTR, FLAGS, INTERNAL, TABLE, EXTENT_PAGE, CHECKSUM = range(1, 8)
Descriptor = tuple[int, bytes]


def pattern(seed: int) -> bytes:
    return random.Random(seed).randbytes(3 * CLUSTER)


# What each lvol shows: offset and the seed of a pattern.
SHOWN = {
    "good": [(0, 1), (590 * CLUSTER, 1)],
    "base": [(0, 2)],
    "top": [(3 * CLUSTER, 3)],
    "long": [(CLUSTER, 4)],
    "beside": [(0, 5)],
    "sums": [(0, 6)],
    "after": [(0, 6)],
    "spdk": [(0, 7)],
}
CLONES = {"base": "top", "sums": "after"}


def make_base_store(path: Path) -> None:
    with Lvstore.create(str(path), size=16 * MIB, cluster_size=CLUSTER) as store:
        good = store.create_volume("good", 600 * CLUSTER)
        for offset, seed in SHOWN["good"]:
            good.pwrite(pattern(seed), offset)
        top = store.create_volume("top", 8 * CLUSTER)
        top.pwrite(pattern(2), 0)
        top.snapshot("base")
        top.pwrite(pattern(3), 3 * CLUSTER)
        long = store.create_volume("long", 8 * CLUSTER)
        for number in range(3):
            long.set_xattr(f"x{number}", bytes(3000))
        long.pwrite(pattern(4), CLUSTER)
        store.create_volume("beside", 8 * CLUSTER).pwrite(pattern(5), 0)
        after = store.create_volume("after", 8 * CLUSTER)
        after.pwrite(pattern(6), 0)
        register(after.snapshot("sums"), "xxh3")
        spdk = store.create_volume("spdk", 8 * CLUSTER)
        spdk.pwrite(pattern(7), 0)
        spdk.set_read_only()
        register(spdk, "crc64")


def register(lvol, algorithm: str) -> None:
    job = lvol.register_checksums(algorithm=algorithm)
    assert job.wait(60)
    job.raise_if_failed()


def pack(*descriptors: Descriptor) -> bytes:
    return b"".join(struct.pack("<BI", kind, len(data)) + data for kind, data in descriptors)


def flags(invalid: int = 5, data_ro: int = 0, md_ro: int = 0) -> Descriptor:
    return FLAGS, struct.pack("<QQQ", invalid, data_ro, md_ro)


def table(clusters: int, *entries: tuple[int, int]) -> Descriptor:
    return TABLE, struct.pack("<Q", clusters) + pairs(*entries)


def pairs(*entries: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<II", *entry) for entry in entries)


def internal(name: str, value: bytes) -> Descriptor:
    return INTERNAL, struct.pack("<HH", len(name), len(value)) + name.encode() + value


class Editor(ImageEditor):
    """Writes first pages anew, descriptor by descriptor; those of `name`, if nothing is said."""

    def names(self, name: str) -> list[Descriptor]:
        """The lvol's xattrs, as they are, but for long ones."""
        return [
            (XATTR, struct.pack("<HH", len(key), len(value)) + key.encode() + value)
            for key, value in self.lvols[name].xattrs.items()
            if len(value) < 1000
        ]

    def own_table(self, name: str) -> Descriptor:
        blob = self.lvols[name]
        return table(len(blob.clusters), *((page, 1) for page in blob.extent_pages))

    def write_root(
        self, name: str, *descriptors: Descriptor, head: bool = True, raw: bytes | None = None
    ) -> None:
        """The lvol's only page: flags and xattrs (`head`), then these descriptors."""
        blob = self.lvols[name]
        area = pack(*([flags(), *self.names(name)] if head else []), *descriptors)
        area = area if raw is None else raw
        page = struct.pack("<QII", blob.id, 0, 0) + area.ljust(4072, b"\0")
        page += struct.pack("<I", NO_PAGE)
        page += struct.pack("<I", page_crc(page + bytes(4)))
        assert len(page) == PAGE
        self.write(self.page_offset(blob.chain[0]), page)

    def set_root(self, name: str, offset: int, data: bytes) -> None:
        """Bytes of an lvol's first page."""
        self.edit_page(self.lvols[name].chain[0], offset, data)

    def set_extent_page(self, name: str, offset: int, data: bytes) -> None:
        self.edit_page(self.lvols[name].extent_pages[0], offset, data)

    def set_flags(self, name: str, invalid: int, data_ro: int = 0, md_ro: int = 0) -> None:
        self.set_root(name, 16 + 5, struct.pack("<QQQ", invalid, data_ro, md_ro))

    def put(self, name: str, *descriptors: Descriptor) -> None:
        """More descriptors behind the last one of its first page."""
        page = self.read(self.page_offset(self.lvols[name].chain[0]), PAGE)
        at = 16
        while True:
            kind, length = struct.unpack_from("<BI", page, at)
            if (kind, length) == (0, 0):
                break
            at += 5 + length
        self.set_root(name, at, pack(*descriptors))

    def superblock(self, offset: int, form: str, *values: int) -> None:
        self.edit_superblock(offset, struct.pack("<" + form, *values))
