"""What a store holds: its blobs as read from disk, before anything is changed.

A cleanly closed store is read by its blob id mask. If a blob is not as it should be, and
after a crash, all metadata pages are read and the blobs found by their first pages. A blob
that cannot be trusted is kept with its `damage`; the others stay.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lvolfs._native.engine import LOST_SECTORS
from lvolfs.blobstore.descriptors import BlobMetadata, Invalid, decode_name, parse_blob
from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.extents import (
    CLUSTERS_PER_EXTENT,
    Extents,
    Run,
    allocated_parts,
    extents_of_runs,
)
from lvolfs.blobstore.masks import MaskKind, bits_set, parse_mask
from lvolfs.blobstore.metadata_page import (
    Chain,
    follow_chain,
    parse_page,
    root_id,
    root_index,
)
from lvolfs.blobstore.superblock import Superblock

BATCH = 256
# metadata pages that are in memory at once while a store is replayed
SCAN = 4096
WRONG_CHECKSUM = "has a wrong checksum"
CANNOT_BE_READ = "cannot be read"


class Device(Protocol):
    def pread(self, length: int, offset: int) -> bytes: ...


class MetadataReader(Protocol):
    """The part of lvolfs._native.engine.Engine that reading needs."""

    def read_page(self, index: int) -> bytes: ...
    def scan_pages(
        self,
        first: int = 0,
        count: int | None = None,
        torn: list[int] | None = None,
        unreadable: list[int] | None = None,
    ) -> list[tuple[int, bytes]]: ...
    def load_extents(
        self, pages: dict[int, int], num_clusters: int
    ) -> tuple[Extents, list[tuple[int, str]]]: ...


@dataclass
class StoredBlob:
    """A blob as it is on disk: its extents that own anything, and the metadata page of each."""

    id: int
    metadata: BlobMetadata = field(default_factory=BlobMetadata)
    chain: list[int] = field(default_factory=list)
    num_clusters: int = 0
    extent_pages: dict[int, int] = field(default_factory=dict)
    clusters: Extents = field(default_factory=dict)
    # run-length extents of a damaged blob, which are not in `clusters`
    runs: list[Run] = field(default_factory=list)
    checksums: bytes = b""
    rle: bool = False
    # descriptors or flags that this version does not know: readable, not to be changed
    frozen: bool = False
    damage: str | None = None

    @property
    def pages(self) -> list[int]:
        """All metadata pages that it uses, first page first."""
        return [*self.chain, *self.extent_pages.values()]

    @property
    def thin(self) -> bool:
        return bool(self.metadata.invalid & Invalid.THIN)

    @property
    def name(self) -> str | None:
        """The name as stored, None without one."""
        value = self.metadata.xattrs.get("name")
        return None if value is None else decode_name(value.split(b"\0", 1)[0])

    def link(self, name: str) -> int | None:
        """The blob id in an internal xattr (SNAP, SNAPTMP, SNAPRM)."""
        value = self.metadata.internal.get(name)
        return None if value is None else int.from_bytes(value, "little")

    @property
    def title(self) -> str:
        name = self.name
        return f"blob {self.id:#x}" if name is None else f"lvol {name!r} (blob {self.id:#x})"


@dataclass
class StoreContents:
    """All blobs of a store, damaged ones too."""

    superblock: Superblock
    blobs: dict[int, StoredBlob]
    # True when the blobs were found by reading all metadata pages
    replayed: bool
    # why a store that was closed cleanly had to be replayed all the same
    problem: str | None = None
    # the masks on disk; out of date after a crash
    masked_pages: bytes = b""
    masked_clusters: bytes = b""
    # metadata pages that the device could not read
    unreadable: list[int] = field(default_factory=list)

    @property
    def damaged(self) -> list[StoredBlob]:
        return [blob for blob in self.blobs.values() if blob.damage is not None]


def read_contents(
    device: Device, reader: MetadataReader, superblock: Superblock, *, force_replay: bool = False
) -> StoreContents:
    """Reads every blob of the store; writes nothing."""
    masks: tuple[bytes, bytes, bytes] | None = None
    problem: str | None = None
    if superblock.used_blobid_mask_len:
        try:
            masks = read_masks(device, superblock)
        except FormatError as error:
            problem = str(error)
        except OSError as error:
            if error.errno not in LOST_SECTORS:
                raise
            problem = f"the masks cannot be read: {error.strerror}"
    if superblock.clean and masks and not force_replay:
        blobs = _read_blobs(superblock, reader, _PageCache(reader), bits_set(masks[2]))
        _check_parents(blobs, superblock.super_blob)
        problem = next((f"{b.title}: {b.damage}" for b in blobs.values() if b.damage), None)
        if problem is None:
            return StoreContents(superblock, blobs, False, None, masks[0], masks[1])
    contents = StoreContents(superblock, {}, True, problem if superblock.clean else None)
    if masks:
        contents.masked_pages, contents.masked_clusters = masks[:2]
    _replay(contents, reader, masks[2] if masks else b"")
    _check_parents(contents.blobs, superblock.super_blob)
    return contents


def read_masks(device: Device, superblock: Superblock) -> tuple[bytes, bytes, bytes]:
    """The bits of the page, cluster and blob id masks. Raises FormatError."""
    s = superblock
    regions = (
        (MaskKind.PAGES, s.used_page_mask_start, s.used_page_mask_len, s.md_len),
        (MaskKind.CLUSTERS, s.used_cluster_mask_start, s.used_cluster_mask_len, s.total_clusters),
        (MaskKind.BLOB_IDS, s.used_blobid_mask_start, s.used_blobid_mask_len, s.md_len),
    )
    pages, clusters, blob_ids = (
        parse_mask(device.pread(slots * s.page_size, start * s.page_size), kind, bits)
        for kind, start, slots, bits in regions
    )
    return pages, clusters, blob_ids


class _PageCache:
    """Pages by index, read in batches; a str says what is wrong with one."""

    def __init__(
        self,
        reader: MetadataReader,
        known: Mapping[int, bytes] | None = None,
        unreadable: Iterable[int] = (),
    ) -> None:
        """known: every page of a chain with a right checksum there is, if it is given."""
        self._reader = reader
        self._pages: dict[int, bytes | str] = dict(known or {})
        self._pages.update(dict.fromkeys(unreadable, CANNOT_BE_READ))
        self.complete = known is not None

    def prefetch(self, indices: Sequence[int]) -> None:
        position = 0
        while position < len(indices):
            first = indices[position]
            end = position
            while end < len(indices) and indices[end] < first + BATCH:
                end += 1
            self._read(indices[position:end], first, indices[end - 1] - first + 1)
            position = end

    def _read(self, wanted: Iterable[int], first: int, count: int) -> None:
        unreadable: list[int] = []
        found = dict(self._reader.scan_pages(first, count, None, unreadable))
        for index in wanted:
            wrong = CANNOT_BE_READ if index in unreadable else WRONG_CHECKSUM
            self._pages[index] = found.get(index, wrong)

    def fetch(self, index: int) -> bytes | str:
        if index not in self._pages:
            if self.complete:
                self._pages[index] = WRONG_CHECKSUM
            else:
                self._read([index], index, 1)
        return self._pages[index]


class _Extents:
    """Reads cluster maps, within what a store can own.

    A metadata page has one owner, or two while a clone takes over its deleted parent's; so have
    clusters. What goes beyond that is damage, and takes no memory, however often it is named.
    """

    def __init__(self, superblock: Superblock, reader: MetadataReader) -> None:
        self._superblock = superblock
        self._reader = reader
        self._page_uses: Counter[int] = Counter()
        self._run_clusters = 0

    def read(self, blob: StoredBlob) -> list[str]:
        """Fills `clusters`; returns what is wrong."""
        most = 1 if blob.damage is None else 0
        problems = []
        wanted = {}
        for extent, page in blob.extent_pages.items():
            if self._page_uses[page] > most:
                problems.append(f"its extent page {page} is used by other blobs, too")
            else:
                wanted[extent] = page
        self._page_uses.update(wanted.values())
        blob.clusters, bad = self._reader.load_extents(wanted, blob.num_clusters)
        return problems + [f"its extent {why}" for _, why in bad] + self._expand(blob)

    def _expand(self, blob: StoredBlob) -> list[str]:
        count = sum(count for _, _, count in blob.runs)
        if not count or blob.damage is not None:
            return []
        self._run_clusters += count
        if self._run_clusters > 2 * self._superblock.total_clusters:
            return ["together with others it names more clusters than there are"]
        blob.clusters = extents_of_runs(blob.runs)
        blob.runs = []
        return []


def _read_blobs(
    superblock: Superblock, reader: MetadataReader, pages: _PageCache, roots: Iterable[int]
) -> dict[int, StoredBlob]:
    wanted = list(roots)
    if not pages.complete:
        pages.prefetch(wanted)
    blobs = {}
    for index in wanted:
        chain = follow_chain(root_id(index), superblock.md_len, pages.fetch)
        blobs[chain.blob_id] = _read_chain(superblock, chain)
    extents = _Extents(superblock, reader)
    # Those first that are right so far: a damaged one must not make another one so.
    for blob in sorted(blobs.values(), key=lambda each: each.damage is not None):
        problems = extents.read(blob) + _check_clusters(superblock, blob)
        if problems and blob.damage is None:
            blob.damage = "; ".join(problems[:3])
    return blobs


def _read_chain(superblock: Superblock, chain: Chain) -> StoredBlob:
    """The blob as far as its chain tells."""
    parsed = parse_blob(chain, superblock.total_clusters)
    problems = [
        f"its extent page {page} is past the end of the metadata"
        for page in parsed.extent_pages.values()
        if page >= superblock.md_len
    ]
    for name in ("SNAP", "SNAPTMP", "SNAPRM"):
        value = parsed.metadata.internal.get(name)
        if value is not None and len(value) != 8:
            problems.append(f"its {name} has {len(value)} bytes instead of 8")
    return StoredBlob(
        id=chain.blob_id,
        metadata=parsed.metadata,
        # The broken one, too: it is not to be handed out.
        chain=chain.indices if chain.broken is None else [*chain.indices, chain.broken],
        num_clusters=parsed.num_clusters,
        extent_pages={e: p for e, p in parsed.extent_pages.items() if p < superblock.md_len},
        runs=parsed.runs,
        checksums=parsed.checksums,
        rle=parsed.rle,
        frozen=bool(parsed.unknown_types),
        damage=parsed.damage or "; ".join(problems[:3]) or None,
    )


def _check_clusters(superblock: Superblock, blob: StoredBlob) -> list[str]:
    highest = count = 0
    for _, part in allocated_parts(blob.clusters):
        highest = max(highest, *part)
        count += CLUSTERS_PER_EXTENT - part.tolist().count(0)
    if highest >= superblock.total_clusters:
        return [f"cluster number {highest} is past the end of the store"]
    if not blob.thin and blob.damage is None and count < blob.num_clusters:
        return ["it is not thin, but has clusters that are not allocated"]
    return []


def _check_parents(blobs: dict[int, StoredBlob], super_blob: int) -> None:
    """Damage runs down the chain: what a parent cannot give, its clones cannot show."""
    checked: dict[int, str | None] = {}
    for start in blobs.values():
        path: list[StoredBlob] = []
        on_path: set[int] = set()
        blob: StoredBlob | None = start
        verdict: str | None = None
        while blob is not None:
            if blob.id in on_path:
                verdict = "its chain of parents is a loop"
                break
            if blob.id in checked:
                verdict = checked[blob.id]
                break
            path.append(blob)
            on_path.add(blob.id)
            if blob.damage is not None:
                break
            parent = blob.link("SNAP")
            if parent is None:
                break
            if parent == super_blob:
                blob.damage = "its parent is the store's own blob, which is no snapshot"
                break
            if parent not in blobs:
                blob.damage = f"its parent, blob {parent:#x}, is missing"
                break
            blob = blobs[parent]
        for member in reversed(path):
            if member.damage is None and verdict is not None:
                member.damage = verdict
            checked[member.id] = member.damage
            if member.damage is not None:
                is_loop = "is a loop" in member.damage
                verdict = member.damage if is_loop else f"its parent, {member.title}, is damaged"


def _replay(contents: StoreContents, reader: MetadataReader, blob_id_mask: bytes) -> None:
    """Finds blobs by reading every metadata page, as after a crash.

    A first page that something else refers to, and that is neither right nor empty, is a
    damaged blob; in a store that was closed cleanly, every page that looks like one. (After a
    crash it may be that of an lvol which was just being made.) So is one that cannot be read.
    """
    superblock = contents.superblock
    torn: list[int] = []
    chains: dict[int, bytes] = {}
    # the id that each page carries
    ids: dict[int, int] = {}
    for first in range(0, superblock.md_len, SCAN):
        for index, content in reader.scan_pages(first, SCAN, torn, contents.unreadable):
            page = parse_page(content)
            ids[index] = page.blob_id
            # Extent pages are most of them, and are read when it is known whose they are.
            if not page.is_extent_page or _is_root(index, page.blob_id, page.sequence):
                chains[index] = content
    roots = [index for index, content in chains.items() if _is_root_page(index, content)]
    cache = _PageCache(reader, chains, contents.unreadable)
    blobs = contents.blobs = _read_blobs(superblock, reader, cache, roots)
    for blob in blobs.values():
        if blob.frozen and blob.damage is None:
            blob.damage = "it has descriptors of unknown types, which may name clusters"
    suspects = _referred_to(superblock, ids, blobs, blob_id_mask)
    if superblock.clean:
        suspects.update(torn)
    for index in sorted(suspects - ids.keys()):
        if index in contents.unreadable:
            blobs[root_id(index)] = _torn_blob(reader, index, CANNOT_BE_READ, ids, blobs)
            continue
        content = reader.read_page(index)
        # A deleted blob's first page is zeros, and a reused one has another id in it. Where the
        # mask of a clean close names it, it is a first page, whatever has become of it.
        named = superblock.clean and _bit(blob_id_mask, index)
        if any(content) and (named or _is_root(index, parse_page(content).blob_id, 0)):
            blobs[root_id(index)] = _torn_blob(reader, index, WRONG_CHECKSUM, ids, blobs)


def _is_root_page(index: int, content: bytes) -> bool:
    page = parse_page(content)
    return _is_root(index, page.blob_id, page.sequence)


def _is_root(index: int, blob_id: int, sequence: int) -> bool:
    return blob_id == root_id(index) and sequence == 0


def _bit(mask: bytes, index: int) -> bool:
    return index // 8 < len(mask) and bool(mask[index // 8] >> index % 8 & 1)


def _referred_to(
    superblock: Superblock,
    ids: Mapping[int, int],
    blobs: Mapping[int, StoredBlob],
    blob_id_mask: bytes,
) -> set[int]:
    """First pages that other pages, clones or the mask name, whether they are there or not."""
    named = set(ids.values())
    named.update(link for blob in blobs.values() if (link := blob.link("SNAP")) is not None)
    indices = {root_index(blob_id) for blob_id in named if blob_id >> 32 == 1}
    indices.update(bits_set(blob_id_mask))
    return {index for index in indices if index < superblock.md_len}


def _torn_blob(
    reader: MetadataReader,
    index: int,
    problem: str,
    ids: Mapping[int, int],
    blobs: Mapping[int, StoredBlob],
) -> StoredBlob:
    """A blob whose first page is lost, with what else carries its id and is nobody else's."""
    blob = StoredBlob(root_id(index), damage=f"its first metadata page, {index}, {problem}")
    blob.chain = [index]
    taken = {page for other in blobs.values() for page in other.pages}
    for other, blob_id in ids.items():
        if blob_id != blob.id or other in taken:
            continue
        page = parse_page(reader.read_page(other))
        if page.is_extent_page:
            # Which clusters of the blob these are is of no use without its first page.
            place = len(blob.extent_pages)
            blob.extent_pages[place] = other
            blob.clusters[place] = page.extent_clusters()
        else:
            blob.chain.append(other)
    return blob
