"""What a store holds: its blobs as read from disk, before anything is changed.

A cleanly closed store is read by its blob id mask. If a blob is not as it should be, and
after a crash, all metadata pages are read and the blobs found by their first pages. A blob
that cannot be trusted is kept with its `damage`; the others stay.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lvolfs.blobstore.cluster_runs import allocated_parts
from lvolfs.blobstore.descriptors import BlobMetadata, Invalid, decode_name, parse_blob
from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.masks import MaskKind, bits_set, parse_mask
from lvolfs.blobstore.metadata_page import (
    Chain,
    MetadataPage,
    follow_chain,
    parse_page,
    root_id,
    root_index,
)
from lvolfs.blobstore.superblock import Superblock

BATCH = 256


class Device(Protocol):
    def pread(self, length: int, offset: int) -> bytes: ...


class MetadataReader(Protocol):
    """The part of lvolfs._native.engine.Engine that reading needs."""

    def read_page(self, index: int) -> bytes: ...
    def scan_pages(
        self, first: int = 0, count: int | None = None, torn: list[int] | None = None
    ) -> list[tuple[int, bytes]]: ...
    def load_extents(
        self, pages: Sequence[int], num_clusters: int
    ) -> tuple[bytearray, list[tuple[int, str]]]: ...


@dataclass
class StoredBlob:
    """A blob as it is on disk. `clusters` are little-endian u32, 0 = not owned."""

    id: int
    metadata: BlobMetadata = field(default_factory=BlobMetadata)
    chain: list[int] = field(default_factory=list)
    extent_pages: list[int] = field(default_factory=list)
    clusters: bytearray = field(default_factory=bytearray)
    checksums: bytes = b""
    rle: bool = False
    # descriptors or flags that this version does not know: readable, not to be changed
    frozen: bool = False
    damage: str | None = None

    @property
    def cluster_map(self) -> memoryview:
        return memoryview(self.clusters).cast("I")

    @property
    def num_clusters(self) -> int:
        return len(self.clusters) // 4

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
    if superblock.clean and masks and not force_replay:
        blobs = _read_blobs(superblock, reader, _PageCache(reader), bits_set(masks[2]))
        _check_parents(blobs)
        problem = next((f"{b.title}: {b.damage}" for b in blobs.values() if b.damage), None)
        if problem is None:
            return StoreContents(superblock, blobs, False, None, masks[0], masks[1])
    blobs = _replay(superblock, reader, masks[2] if masks else b"")
    _check_parents(blobs)
    return StoreContents(
        superblock,
        blobs,
        True,
        problem if superblock.clean else None,
        masks[0] if masks else b"",
        masks[1] if masks else b"",
    )


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
    """Pages by index, read in batches; None for those with a wrong checksum."""

    def __init__(self, reader: MetadataReader, known: Iterable[tuple[int, bytes]] = ()) -> None:
        self._reader = reader
        self._pages: dict[int, bytes | None] = dict(known)
        self.complete = bool(self._pages)

    def prefetch(self, indices: Sequence[int]) -> None:
        position = 0
        while position < len(indices):
            first = indices[position]
            end = position
            while end < len(indices) and indices[end] < first + BATCH:
                end += 1
            count = indices[end - 1] - first + 1
            found = dict(self._reader.scan_pages(first, count))
            for index in indices[position:end]:
                self._pages[index] = found.get(index)
            position = end

    def fetch(self, index: int) -> bytes | None:
        if index not in self._pages:
            self._pages[index] = (
                None if self.complete else dict(self._reader.scan_pages(index, 1)).get(index)
            )
        return self._pages[index]


def _read_blobs(
    superblock: Superblock, reader: MetadataReader, pages: _PageCache, roots: Iterable[int]
) -> dict[int, StoredBlob]:
    wanted = list(roots)
    if not pages.complete:
        pages.prefetch(wanted)
    blobs = {}
    for index in wanted:
        chain = follow_chain(root_id(index), superblock.md_len, pages.fetch)
        blobs[chain.blob_id] = _read_blob(superblock, reader, chain)
    return blobs


def _read_blob(superblock: Superblock, reader: MetadataReader, chain: Chain) -> StoredBlob:
    parsed = parse_blob(chain, superblock.total_clusters)
    metadata = parsed.metadata
    blob = StoredBlob(
        id=chain.blob_id,
        metadata=metadata,
        chain=chain.indices,
        checksums=parsed.checksums,
        rle=parsed.rle,
        frozen=bool(parsed.unknown_types),
        damage=parsed.damage,
    )
    problems = []
    for page in parsed.extent_pages:
        if page >= superblock.md_len:
            problems.append(f"its extent page {page} is past the end of the metadata")
    blob.extent_pages = [page if page < superblock.md_len else 0 for page in parsed.extent_pages]
    if parsed.extent_pages:
        # a damaged table may be shorter than the blob
        known = min(parsed.num_clusters, 512 * len(parsed.extent_pages))
        blob.clusters, bad = reader.load_extents(blob.extent_pages, known)
        problems += [f"extent page {blob.extent_pages[entry]}: {why}" for entry, why in bad]
    else:
        blob.clusters = bytearray(parsed.clusters.tobytes())
        blob.clusters += bytes(4 * max(0, parsed.num_clusters - len(parsed.clusters)))
    problems += _check_clusters(superblock, blob)
    for name in ("SNAP", "SNAPTMP", "SNAPRM"):
        value = metadata.internal.get(name)
        if value is not None and len(value) != 8:
            problems.append(f"its {name} has {len(value)} bytes instead of 8")
    if problems and blob.damage is None:
        blob.damage = "; ".join(problems[:3])
    return blob


def _check_clusters(superblock: Superblock, blob: StoredBlob) -> list[str]:
    highest = count = 0
    for _, part in allocated_parts(blob.clusters):
        highest = max(highest, *part)
        count += sum(map(bool, part))
    if highest >= superblock.total_clusters:
        return [f"cluster number {highest} is past the end of the store"]
    if not blob.thin and blob.damage is None and count < blob.num_clusters:
        return ["it is not thin, but has clusters that are not allocated"]
    return []


def _check_parents(blobs: dict[int, StoredBlob]) -> None:
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


def _replay(
    superblock: Superblock, reader: MetadataReader, blob_id_mask: bytes
) -> dict[int, StoredBlob]:
    """Finds blobs by reading every metadata page, as after a crash.

    A first page that something else refers to, and that is neither right nor empty, is a
    damaged blob; in a store that was closed cleanly, every page that looks like one. (After a
    crash it may be that of an lvol which was just being made.)
    """
    torn: list[int] = []
    valid = reader.scan_pages(0, None, torn)
    pages = {index: parse_page(content) for index, content in valid}
    roots = [index for index, page in pages.items() if _is_root(index, page.blob_id, page.sequence)]
    cache = _PageCache(reader, valid)
    cache.complete = True
    blobs = _read_blobs(superblock, reader, cache, roots)
    for blob in blobs.values():
        if blob.frozen and blob.damage is None:
            blob.damage = "it has descriptors of unknown types, which may name clusters"
    suspects = _referred_to(superblock, pages, blobs, blob_id_mask)
    if superblock.clean:
        suspects.update(torn)
    for index in sorted(suspects):
        if index in roots:
            continue
        content = reader.read_page(index)
        page = parse_page(content)
        # A deleted blob's first page is zeros, and a reused one has another id in it. Where the
        # mask of a clean close names it, it is a first page, whatever has become of it.
        named = superblock.clean and _bit(blob_id_mask, index)
        if index not in pages and any(content) and (named or _is_root(index, page.blob_id, 0)):
            blobs[root_id(index)] = _torn_blob(index, pages, blobs)
    return blobs


def _is_root(index: int, blob_id: int, sequence: int) -> bool:
    return blob_id == root_id(index) and sequence == 0


def _bit(mask: bytes, index: int) -> bool:
    return index // 8 < len(mask) and bool(mask[index // 8] >> index % 8 & 1)


def _referred_to(
    superblock: Superblock,
    pages: Mapping[int, MetadataPage],
    blobs: Mapping[int, StoredBlob],
    blob_id_mask: bytes,
) -> set[int]:
    """First pages that other pages, clones or the mask name, whether they are there or not."""
    ids = {page.blob_id for page in pages.values()}
    ids.update(link for blob in blobs.values() if (link := blob.link("SNAP")) is not None)
    indices = {root_index(blob_id) for blob_id in ids if blob_id >> 32 == 1}
    indices.update(bits_set(blob_id_mask))
    return {index for index in indices if index < superblock.md_len}


def _torn_blob(
    index: int,
    pages: Mapping[int, MetadataPage],
    blobs: Mapping[int, StoredBlob],
) -> StoredBlob:
    """A blob whose first page is lost, with what else carries its id and is nobody else's."""
    blob = StoredBlob(
        root_id(index), damage=f"its first metadata page, {index}, has a wrong checksum"
    )
    blob.chain = [index]
    taken = {page for other in blobs.values() for page in [*other.chain, *other.extent_pages]}
    for other, page in pages.items():
        if page.blob_id != blob.id or other in taken:
            continue
        if page.is_extent_page:
            blob.extent_pages.append(other)
            blob.clusters += page.extent_clusters()
        else:
            blob.chain.append(other)
    return blob
