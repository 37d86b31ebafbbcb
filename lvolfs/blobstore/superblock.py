"""The superblock: where everything else of a store is.

Geometry fields count in slots of `page_size` bytes from the start of the device. Only the
first 4096 bytes of a slot carry data, also where slots are larger.
"""

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from lvolfs._native.engine import LOST_SECTORS
from lvolfs.blobstore.crc32c import crc32c
from lvolfs.blobstore.errors import FormatError

PAGE = 4096
SIGNATURE = b"SPDKBLOB"
LVOLSTORE = b"LVOLSTORE"
VERSION = 3
NO_BLOB = 0xFFFFFFFFFFFFFFFF
MASK_HEADER = 5
_CLUSTER_MASK = 1  # its type
# Largest cluster count that one blob or store may have.
MAX_CLUSTERS = 1 << 28

_CLEAN_OFFSET = 16
_CLUSTER_MASK_LEN_OFFSET = 44
_SIZE_OFFSET = 80
# Sizes that are tried to tell a torn superblock from one that is damaged in another way. Each
# adds four checksums of 2^32 that are taken for right.
_MOST_SIZES = 2048
_MASK_BITS = struct.Struct("<BI")
_FIELDS = struct.Struct("<8sIIIQIIIIIII16sIIQII")
assert _FIELDS.size == 96


@dataclass(frozen=True)
class Superblock:
    """Sizes in bytes, `*_start` and `*_len` in slots of `page_size` bytes."""

    cluster_size: int
    used_page_mask_start: int
    used_page_mask_len: int
    used_cluster_mask_start: int
    used_cluster_mask_len: int
    used_blobid_mask_start: int
    used_blobid_mask_len: int
    md_start: int
    md_len: int
    size: int
    version: int = VERSION
    clean: bool = False
    super_blob: int = NO_BLOB
    bstype: bytes = LVOLSTORE
    io_unit_size: int = PAGE
    page_size: int = PAGE
    # read from a page of which half is older than the other; never written
    torn: bool = False

    @property
    def total_clusters(self) -> int:
        return self.size // self.cluster_size

    @property
    def metadata_clusters(self) -> int:
        return -(-(self.md_start + self.md_len) * self.page_size // self.cluster_size)

    @property
    def cluster_mask_room(self) -> int:
        """Slots that the cluster mask may grow to."""
        end = self.used_blobid_mask_start if self.used_blobid_mask_len else self.md_start
        return end - self.used_cluster_mask_start

    def pack(self) -> bytes:
        """The 4096 bytes of the superblock, sum included."""
        body = _FIELDS.pack(
            SIGNATURE,
            self.version,
            PAGE,
            int(self.clean),
            self.super_blob,
            self.cluster_size,
            self.used_page_mask_start,
            self.used_page_mask_len,
            self.used_cluster_mask_start,
            self.used_cluster_mask_len,
            self.md_start,
            self.md_len,
            self.bstype,
            self.used_blobid_mask_start,
            self.used_blobid_mask_len,
            self.size,
            self.io_unit_size,
            0 if self.page_size == PAGE else self.page_size,
        ).ljust(PAGE - 4, b"\0")
        return body + struct.pack("<I", crc32c(body))


def mask_slots(bits: int, page_size: int) -> int:
    """Slots that a mask of `bits` bits needs with its header."""
    return -(-(MASK_HEADER + -(-bits // 8)) // page_size)


class _Device(Protocol):
    @property
    def size(self) -> int: ...
    def pread(self, length: int, offset: int) -> bytes: ...


def read_superblock(device: _Device, path: str) -> Superblock:
    """The superblock of an open device. Raises FormatError as parse_superblock does, with the
    device's errno when it cannot be read; other OSErrors are those of a device that is gone."""
    try:
        page = device.pread(min(PAGE, device.size), 0)
    except OSError as error:
        if error.errno not in LOST_SECTORS:
            raise
        raise FormatError(
            f"superblock of {path!r}",
            f"the superblock cannot be read ({error.strerror}), and there is no second "
            "one: copy the device with a program that tries again and skips what stays "
            "unreadable (ddrescue), and open the copy",
            code=error.errno,
        ) from None
    masked_clusters = _masked_clusters(device, page) if len(page) == PAGE else None
    return parse_superblock(page, device.size, device=path, masked_clusters=masked_clusters)


def parse_superblock(
    page: bytes, device_size: int, *, device: str = "store", masked_clusters: int | None = None
) -> Superblock:
    """The superblock in `page` (4096 bytes), checked against a device of `device_size` bytes.

    masked_clusters: what the cluster mask counts, to recognise a superblock that was torn when
    the store grew.

    Raises FormatError: EILSEQ for what is damaged or not a blobstore, ENXIO for a blobstore
    that is not a logical volume store.
    """
    subject = f"superblock of {device!r}"
    if len(page) < PAGE:
        raise FormatError(subject, f"only {len(page)} of {PAGE} bytes can be read")
    fields = _FIELDS.unpack_from(page)
    signature, version, length, clean, super_blob, cluster_size = fields[:6]
    page_mask, page_mask_len, cluster_mask, cluster_mask_len, md_start, md_len = fields[6:12]
    bstype, blobid_mask, blobid_mask_len, size, io_unit_size, page_size = fields[12:]
    if signature == SIGNATURE and not 1 <= version <= VERSION:
        raise FormatError(subject, f"version {version}, but only 1 to {VERSION} are known")
    if signature != SIGNATURE:
        raise FormatError(subject, "no blobstore is here (its signature is missing)")
    stored = struct.unpack_from("<I", page, PAGE - 4)[0]
    computed = crc32c(page[: PAGE - 4])
    torn = stored != computed
    if torn and not _is_torn(page, stored, device_size, masked_clusters):
        raise FormatError(subject, f"checksum is {stored:#010x}, but {computed:#010x} computed")
    kind = bstype.rstrip(b"\0")
    if kind != LVOLSTORE:
        shown = kind.decode("ascii", "backslashreplace") or "none"
        raise FormatError(
            subject, f"a blobstore of type {shown}, not a logical volume store", code=errno.ENXIO
        )
    size = size or device_size
    if size > device_size:
        raise FormatError(
            subject,
            f"the store has {size} bytes, but the device only {device_size}: it was truncated",
        )
    superblock = Superblock(
        version=version,
        clean=clean == 1 and not torn,
        super_blob=super_blob,
        cluster_size=cluster_size,
        used_page_mask_start=page_mask,
        used_page_mask_len=page_mask_len,
        used_cluster_mask_start=cluster_mask,
        used_cluster_mask_len=cluster_mask_len,
        used_blobid_mask_start=blobid_mask if version >= VERSION else 0,
        used_blobid_mask_len=blobid_mask_len if version >= VERSION else 0,
        md_start=md_start,
        md_len=md_len,
        bstype=kind,
        size=size,
        io_unit_size=io_unit_size or PAGE,
        page_size=page_size or PAGE,
        torn=torn,
    )
    if length != PAGE:
        raise FormatError(subject, f"length is {length}, not {PAGE}")
    _check_geometry(superblock, subject)
    return superblock


def _masked_clusters(device: _Device, page: bytes) -> int | None:
    """How many clusters the cluster mask counts, as it was when the store was last closed."""
    fields = _FIELDS.unpack_from(page)
    at = fields[8] * (fields[17] or PAGE)
    if fields[0] != SIGNATURE or at + _MASK_BITS.size > device.size:
        return None
    try:
        kind, bits = _MASK_BITS.unpack(device.pread(_MASK_BITS.size, at))
    except OSError as error:
        if error.errno not in LOST_SECTORS:
            raise
        return None
    return bits if kind == _CLUSTER_MASK else None


def _is_torn(page: bytes, stored: int, device_size: int, masked_clusters: int | None) -> bool:
    """Whether `stored` is the checksum of what was in the page's place before, or was to come.

    All fields lie in the first sector of the page and the checksum in its last one, so a device
    that writes sectors of less than a page and loses power in between leaves those of one
    superblock with that of another. Only two things ever change: the mark of a clean close,
    and, when the store grows, its size with the length of the cluster mask.
    """
    return any(stored == crc32c(other) for other in _neighbours(page, device_size, masked_clusters))


def _neighbours(page: bytes, device_size: int, masked_clusters: int | None) -> Iterator[bytearray]:
    """What a checksum covers, for every superblock that may have come before or after `page`."""
    fields = _FIELDS.unpack_from(page)
    cluster_size, mask_len = fields[5], fields[9]
    io_unit_size, page_size = fields[16] or PAGE, fields[17] or PAGE
    body = bytearray(page[: PAGE - 4])
    for mark in (0, 1):
        struct.pack_into("<I", body, _CLEAN_OFFSET, mark)
        yield body
    if not cluster_size:
        return
    sizes = [device_size - device_size % io_unit_size]
    if masked_clusters is not None:
        step = max(io_unit_size, cluster_size // _MOST_SIZES)
        sizes += range(masked_clusters * cluster_size, (masked_clusters + 1) * cluster_size, step)
    for size in sizes:
        if size // cluster_size > MAX_CLUSTERS:
            continue
        slots = mask_slots(size // cluster_size, page_size)
        struct.pack_into("<Q", body, _SIZE_OFFSET, size)
        for length in {slots, max(slots, mask_len)}:
            struct.pack_into("<I", body, _CLUSTER_MASK_LEN_OFFSET, length)
            for mark in (0, 1):
                struct.pack_into("<I", body, _CLEAN_OFFSET, mark)
                yield body


def _check_geometry(s: Superblock, subject: str) -> None:
    def need(condition: bool, problem: str) -> None:
        if not condition:
            raise FormatError(subject, problem)

    need(
        s.page_size % PAGE == 0 and s.page_size & (s.page_size - 1) == 0,
        f"metadata page size {s.page_size} is no power of two of at least {PAGE}",
    )
    need(
        s.cluster_size > 0 and s.cluster_size % s.page_size == 0,
        f"cluster size {s.cluster_size} is no multiple of the metadata page size {s.page_size}",
    )
    need(
        s.io_unit_size >= 512 and s.cluster_size % s.io_unit_size == 0,
        f"cluster size {s.cluster_size} is no multiple of the block size {s.io_unit_size}",
    )
    need(0 < s.total_clusters <= MAX_CLUSTERS, f"{s.total_clusters} clusters are out of range")
    need(s.md_len > 0, "no metadata pages")
    need(
        s.metadata_clusters <= s.total_clusters,
        f"metadata of {s.metadata_clusters} clusters do not fit {s.total_clusters}",
    )
    regions = [
        ("page mask", s.used_page_mask_start, s.used_page_mask_len, s.md_len),
        ("cluster mask", s.used_cluster_mask_start, s.used_cluster_mask_len, s.total_clusters),
    ]
    if s.used_blobid_mask_len:
        regions.append(("blob id mask", s.used_blobid_mask_start, s.used_blobid_mask_len, s.md_len))
    end = 1
    for name, start, slots, bits in sorted(regions, key=lambda region: region[1]):
        need(start >= end, f"{name} at page {start} overlaps what is before it")
        need(
            slots >= mask_slots(bits, s.page_size),
            f"{name} of {slots} pages is too small for {bits} bits",
        )
        end = start + slots
    need(s.md_start >= end, f"metadata at page {s.md_start} overlap a mask")


def plan_superblock(
    size: int,
    *,
    cluster_size: int,
    block_size: int = PAGE,
    page_size: int = PAGE,
    md_ratio: int = 100,
) -> Superblock:
    """The geometry of a new store on `size` bytes, laid out as SPDK lays it out.

    md_ratio: metadata pages per 100 clusters. Raises OSError(EINVAL) naming what does not
    fit, OSError(ENOSPC) when the metadata alone would fill the device.
    """
    if block_size not in (512, 4096):
        raise OSError(errno.EINVAL, f"block size {block_size}: it must be 512 or 4096")
    if page_size < PAGE or page_size & (page_size - 1):
        raise OSError(
            errno.EINVAL, f"metadata page size {page_size}: a power of two from {PAGE} on is needed"
        )
    if cluster_size <= 0 or cluster_size % page_size:
        raise OSError(
            errno.EINVAL, f"cluster size {cluster_size}: it must be a multiple of {page_size}"
        )
    if cluster_size >= 1 << 32:
        raise OSError(errno.EINVAL, f"cluster size {cluster_size}: it must be less than 4 GiB")
    if not 1 <= md_ratio <= 10000:
        raise OSError(errno.EINVAL, f"metadata ratio {md_ratio}: it must be 1 to 10000")
    size -= size % block_size
    total = size // cluster_size
    if not total:
        raise OSError(
            errno.EINVAL, f"size {size}: it must hold at least one cluster of {cluster_size} bytes"
        )
    if total > MAX_CLUSTERS:
        raise OSError(
            errno.EINVAL,
            f"size {size} makes {total} clusters of {cluster_size} bytes; at most {MAX_CLUSTERS} "
            "are supported: take a larger cluster size",
        )
    md_len = md_ratio * total // 100
    if not md_len:
        raise OSError(errno.EINVAL, f"metadata ratio {md_ratio} leaves no metadata page")
    page_mask_len = mask_slots(md_len, page_size)
    cluster_mask_len = mask_slots(total, page_size)
    cluster_mask_start = 1 + page_mask_len
    blobid_mask_start = cluster_mask_start + max(cluster_mask_len, page_mask_len)
    superblock = Superblock(
        cluster_size=cluster_size,
        used_page_mask_start=1,
        used_page_mask_len=page_mask_len,
        used_cluster_mask_start=cluster_mask_start,
        used_cluster_mask_len=cluster_mask_len,
        used_blobid_mask_start=blobid_mask_start,
        used_blobid_mask_len=page_mask_len,
        md_start=blobid_mask_start + page_mask_len,
        md_len=md_len,
        size=size,
        io_unit_size=block_size,
        page_size=page_size,
    )
    if superblock.metadata_clusters >= total:
        raise OSError(
            errno.ENOSPC,
            f"size {size}: metadata would take all {total} clusters; make the store larger",
        )
    return superblock


def grown_superblock(superblock: Superblock, size: int) -> Superblock:
    """The superblock of the same store on a device of `size` bytes, marked not clean.

    Raises OSError(ENOSPC) when the cluster mask has no room for that many clusters.
    """
    size -= size % superblock.io_unit_size
    slots = mask_slots(size // superblock.cluster_size, superblock.page_size)
    if slots > superblock.cluster_mask_room:
        raise OSError(
            errno.ENOSPC,
            f"the store was made with room to count "
            f"{(superblock.cluster_mask_room * superblock.page_size - MASK_HEADER) * 8} clusters, "
            f"but {size // superblock.cluster_size} are wanted",
        )
    if size // superblock.cluster_size > MAX_CLUSTERS:
        raise OSError(errno.ENOSPC, f"at most {MAX_CLUSTERS} clusters are supported")
    return replace(
        superblock,
        size=size,
        used_cluster_mask_len=max(slots, superblock.used_cluster_mask_len),
        clean=False,
    )
