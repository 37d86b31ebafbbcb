"""The stores that the opening fuzzer starts from: their metadata, and how long the device is.

Only metadata are kept; clusters of data are holes.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lvolfs.delta import checksums
from lvolfs.lvstore.store import Lvstore
from tests import golden

CLUSTER = 16 << 10
_GEOMETRY = struct.Struct("<II")


@dataclass(frozen=True)
class StoreBase:
    """metadata: the first bytes of the device, up to the end of the metadata pages."""

    metadata: bytes
    size: int
    page_size: int
    md_start: int
    md_len: int

    @classmethod
    def read(cls, path: Path) -> "StoreBase":
        with path.open("rb") as file:
            head = file.read(4096)
            md_start, md_len = _GEOMETRY.unpack_from(head, 48)
            (page_size,) = struct.unpack_from("<I", head, 92)
            page_size = page_size or 4096
            file.seek(0)
            metadata = file.read((md_start + md_len) * page_size)
        return cls(metadata, path.stat().st_size, page_size, md_start, md_len)

    @cached_property
    def used_pages(self) -> list[int]:
        """Metadata pages that hold anything."""
        return [
            index
            for index in range(self.md_len)
            if any(self.metadata[self.offset(index) : self.offset(index) + 16])
        ]

    def offset(self, index: int) -> int:
        return (self.md_start + index) * self.page_size


def _small_store(path: Path) -> None:
    """Everything that metadata can say, in 4 MiB."""
    with Lvstore.create(str(path), size=4 << 20, cluster_size=CLUSTER, md_ratio=25) as store:
        thin = store.create_volume("thin", 600 * CLUSTER)
        thin.pwrite(b"t" * CLUSTER, 0)
        thin.pwrite(b"t" * CLUSTER, 590 * CLUSTER)
        store.create_volume("thick", 3 * CLUSTER, thick=True)
        top = store.create_volume("top", 6 * CLUSTER)
        top.pwrite(b"1" * 3 * CLUSTER, 0)
        base = top.snapshot("base")
        top.pwrite(b"2" * CLUSTER, CLUSTER)
        top.snapshot("middle")
        top.pwrite(b"3" * CLUSTER, 2 * CLUSTER)
        base.clone("clone").pwrite(b"c", 5 * CLUSTER)
        checksums.register(base).wait()
        # A chain of several pages.
        for number in range(3):
            thin.set_xattr(f"long{number}", bytes(3000))
        store.create_volume("empty", 0)


def make_bases(folder: Path) -> list[StoreBase]:
    """The small store, cleanly closed, and two that SPDK has written, one after a crash."""
    small = folder / "small"
    _small_store(small)
    paths = [small, *(Path(golden.unpack(n, folder)) for n in ("unclean_md", "b512_c64k"))]
    bases = [StoreBase.read(path) for path in paths]
    for path in paths:
        path.unlink()
    return bases
