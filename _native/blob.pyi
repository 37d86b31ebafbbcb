from typing import TypeAlias, TypedDict

from lvolfs._native.device import Device
from lvolfs._native.engine import Engine

Bytes: TypeAlias = bytes | bytearray | memoryview

class IoStat(TypedDict):
    """Completed requests of a kind, their bytes and nanoseconds; the slowest and the quickest
    of them (0 = none yet); those that failed, and those that failed for want of memory."""

    ops: int
    bytes: int
    ticks: int
    slowest: int
    quickest: int
    failed: int
    nomem: int

class IoStats(TypedDict):
    read: IoStat
    write: IoStat
    unmap: IoStat

class Blob:
    """One blob: own cluster map and data path. Data calls release the GIL."""

    engine: Engine
    @property
    def id(self) -> int: ...
    @property
    def num_clusters(self) -> int: ...
    @property
    def num_allocated_clusters(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def thin(self) -> bool: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def rle(self) -> bool:
        """Kept as EXTENT_RLE; swap_maps takes it along with the map, so heads written
        after it need their EXTENT_TABLE flag anew."""
    @property
    def failed(self) -> int:
        """The errno of a data write that was lost, or 0; its flushes fail with it."""
    @property
    def parent(self) -> Blob | None: ...
    @property
    def external_parent(self) -> Device | None: ...
    @property
    def chain(self) -> list[int]: ...
    @property
    def extent_pages(self) -> dict[int, int]:
        """The metadata page of each extent (512 clusters) that has one, in order."""
    @property
    def head(self) -> bytes: ...
    @property
    def checksums(self) -> bytes: ...
    @property
    def refs(self) -> int:
        """Python objects and open lane handles that hold it."""
    @property
    def writes(self) -> int:
        """Completed since it was opened; resetting the statistics does not change it."""
    @property
    def io_stats(self) -> IoStats: ...
    def reset_io_stats(self, what: str) -> None:
        """Begins anew: "all", "maxmin" (the slowest and quickest) or "error"."""

    def as_device(self, path: str) -> Device:
        """A read-only Device called `path` that shows what the blob shows, as large as it is
        now. It keeps the blob; reading fails with EBADF once the blob's engine is closed."""

    # -- data, through the gate
    def pread(self, length: int, offset: int) -> bytes: ...
    def readinto(self, buffer: bytearray | memoryview, offset: int) -> None: ...
    def pwrite(self, data: Bytes, offset: int) -> None: ...
    def flush(self) -> None:
        """Engine.flush(); fails with the error of a data write to this blob that was lost."""
    def unmap(self, offset: int, length: int) -> None: ...
    def write_zeroes(self, offset: int, length: int) -> None: ...
    def allocate(self, offset: int, length: int) -> None: ...
    def unmap_cluster(self, index: int) -> None: ...
    def read_own_cluster(self, index: int) -> bytes: ...
    def seek_data(self, offset: int) -> int: ...
    def seek_hole(self, offset: int) -> int: ...
    def fragmap(self, first: int = 0, count: int | None = None) -> bytes:
        """Bit i (LSB first) of ceil(count/8) bytes: cluster first+i is owned by this blob."""
    def clusters(self, first: int = 0, count: int | None = None) -> bytes:
        """Little-endian u32 each: the device cluster that the blob owns, 0 for none. To the end
        without `count`: an lvol may have hundreds of millions."""
    def owned(self) -> list[tuple[int, int]]:
        """(cluster of the blob, device cluster) of all that it owns, in order."""
    def resolve(self, first: int = 0, count: int | None = None) -> bytes:
        """Little-endian u32 each: the device cluster read for it through the chain,
        0xFFFFFFFF for zeros, 0xFFFFFFFE for the external parent."""
    def fill_from_ancestors(self, first: int, count: int, *, depth: int, zeros: bool) -> int:
        """Allocates clusters first..first+count-1 that the blob lacks and that one of its
        `depth` nearest ancestors has (0 = all of them, and the external parent), copying
        the content shown now; `zeros` allocates those that nobody has, too. Through the
        gate, in parallel with other I/O. Returns how many it allocated."""

    # -- shape; inside Engine.exclusive() only. In memory until persist().
    def set_head(self, head: Bytes) -> None: ...
    def set_checksums(self, records: Bytes) -> None:
        """Packed {u64 checksum, u32 run} records of the type-7 descriptor, b"" for none."""
    def set_thin(self, thin: bool) -> None: ...
    def set_read_only(self, read_only: bool) -> None: ...
    def set_parent(self, parent: Blob | None) -> None: ...
    def set_external_parent(self, device: Device | None, *, missing: bool = False) -> None:
        """A parent outside of the store; `missing` = named but not at hand: reads of
        clusters that are not owned then fail with EIO."""
    def resize(self, num_clusters: int) -> None:
        """Growing a thick blob allocates; shrinking frees at the next persist."""
    def extend(self, num_clusters: int) -> None:
        """Grows it in memory, not inside Engine.exclusive(); the next commit makes size and map
        durable together. OSError: ENOSPC without a metadata page at hand; nothing has changed
        then, and may be had after a flush."""
    def swap_maps(self, other: Blob) -> None:
        """Exchanges cluster maps and extent pages (snapshot creation)."""
    def merge_from(self, parent: Blob) -> None:
        """Takes over every cluster of `parent` that this blob lacks, and its extent pages
        where this blob has none; what the blob does not take stays with the parent."""
    def drop_shared_with(self, child: Blob) -> None:
        """Forgets, without freeing, the clusters and extent pages that `child` has too."""
