"""The store in memory and its data path, as Python sees them.

Errors are OSError. Nothing here knows names, xattrs or JSON: `lvolfs.blobstore` lays
metadata out, `lvolfs.lvstore` decides what to do in which order.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from lvolfs._native.blob import Blob, Bytes
from lvolfs._native.device import Device

SEEDED_FAULTS: dict[str, int]
# What a device says of single sectors that are lost; the others can be read on.
LOST_SECTORS: frozenset[int]

class Engine:
    """Geometry, allocators, gate and commit of one open store.

    Sizes are bytes, metadata pages are indices from md_start. A new Engine has its metadata
    clusters marked used and nothing else.
    """

    device: Device
    def __init__(
        self,
        device: Device,
        *,
        cluster_size: int,
        page_size: int,
        md_start: int,
        md_len: int,
        total_clusters: int,
        read_only: bool = False,
    ) -> None: ...
    @property
    def cluster_size(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    @property
    def md_len(self) -> int: ...
    @property
    def total_clusters(self) -> int: ...
    @property
    def metadata_clusters(self) -> int: ...
    @property
    def free_clusters(self) -> int: ...
    @property
    def free_pages(self) -> int:
        """Free metadata pages, those of reserved_pages among them."""
    @property
    def reserved_pages(self) -> int:
        """Pages that are kept free so that the longest chain can always be written anew."""
    @property
    def read_only(self) -> bool: ...
    @property
    def failed(self) -> int:
        """The errno that stopped all commits, or 0."""

    # -- reading metadata; changes nothing
    def read_page(self, index: int) -> bytes:
        """The 4096 bytes of one metadata page, unchecked."""
    def scan_pages(
        self,
        first: int = 0,
        count: int | None = None,
        torn: list[int] | None = None,
        unreadable: list[int] | None = None,
    ) -> list[tuple[int, bytes]]:
        """(index, 4096 bytes) of every page whose CRC is right, in order. Indices of pages
        that look like the first of a blob, but have a wrong CRC, are appended to `torn`, those
        that the device cannot read (LOST_SECTORS) to `unreadable`; without such a list, and for
        any other error, OSError.

        Reads in large batches and skips the holes of the backing file.
        """
    def load_extents(
        self, pages: dict[int, int], num_clusters: int
    ) -> tuple[dict[int, bytes], list[tuple[int, str]]]:
        """The cluster map behind an extent table.

        pages: metadata page index by extent (512 clusters). Returns 512 little-endian u32 for
        each extent that owns anything, and (extent, why) for each page that is not to be
        trusted. Memory goes with what is owned, not with num_clusters.
        """

    # -- filling a fresh engine from what is on disk
    def mark_clusters(self, clusters: Iterable[int]) -> None:
        """Keep clusters from being handed out (damaged blobs). Marking twice is allowed."""
    def mark_pages(self, pages: Iterable[int]) -> None: ...
    def adopt_blob(
        self,
        blob_id: int,
        *,
        num_clusters: int,
        clusters: dict[int, bytes],
        extent_pages: dict[int, int],
        chain: Sequence[int],
        head: Bytes,
        checksums: Bytes = b"",
        thin: bool,
        read_only: bool,
        rle: bool = False,
        shares_with: Blob | None = None,
    ) -> Blob:
        """Takes a blob from disk over: marks its clusters and pages used.

        clusters and extent_pages: by extent, as load_extents takes and gives them.

        Raises OSError(ERANGE) for a cluster or page past the end or inside the metadata,
        OSError(EEXIST) for one that another blob has (unless that is `shares_with`, a blob
        that an interrupted snapshot operation left sharing clusters with this one). On an
        error nothing is marked.
        """

    # -- changes; between enter and exit of exclusive() only, except flush
    def exclusive(self, doomed: Blob | None = None) -> AbstractContextManager[None]:
        """No data request is inside, no commit runs. Flushes first, so that what is under
        way inside is only the change itself. Not reentrant; other Python threads may wait.
        `doomed` is about to be destroyed: clusters of it that are being copied on write are not
        completed for that, and are as they were should it not be destroyed."""
    def create_blob(self, num_clusters: int, *, thin: bool, head: Bytes) -> Blob:
        """A new blob in memory: claims the lowest free page as its id, and clusters if thick
        (zeroed). OSError(ENOSPC) leaves nothing claimed. Persist it to make it exist."""
    def persist(self, blob: Blob) -> None:
        """Writes the blob's extent pages and chain, with barriers: data and new pages before
        the root page, which is the commit point. Durable when it returns."""
    def destroy(self, blob: Blob) -> None:
        """Zeroes root and chain, barrier, then frees what the blob still owns."""
    def discard_unpersisted(self, blob: Blob) -> None:
        """Undoes create_blob of a blob that was never persisted."""
    def write_superblock(self, page: Bytes) -> None:
        """Writes 4096 bytes at 0, as given, and flushes."""
    def flush(self) -> None:
        """Everything written before the call is durable afterwards. Concurrent calls share
        one commit. Raises the sticky error of a failed store."""
    def seed_fault(self, name: str) -> None:
        """Plants a mistake of SEEDED_FAULTS; only with LVOLFS_SEEDED_FAULTS=1 (EPERM)."""
    def start_flusher(self, interval: float = 1.0) -> None:
        """A native thread that commits changed maps every `interval` seconds (under load, up
        to five times that), and data written in place every thirty of them."""
    def stop_flusher(self) -> None: ...
    def settle(self) -> None:
        """Flushes, and waits until everything freed so far can be used again."""
    @property
    def dirty(self) -> bool:
        """Whether there is something that the next flush would have to do."""
    def used_pages_mask(self) -> bytes:
        """Bits only, ceil(md_len / 8) bytes, LSB first."""
    def used_clusters_mask(self) -> bytes: ...
    def grow(self, total_clusters: int) -> None: ...
    def close(self) -> None:
        """Stops the flusher and frees memory; writes nothing. Blobs become unusable."""
