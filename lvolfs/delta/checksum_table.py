"""The checksums of a snapshot's clusters: the table, and the two forms it is stored in.

`crc64`, every owned cluster registered: metadata descriptors of type 7 ({u64 checksum,
u32 run} per entry, zeros run-length encoded) and the external xattr `checksum` (u64), both
exactly as Longhorn's SPDK keeps them. Type 7 writes 0 for a cluster that is not owned, so an
owned cluster whose CRC is 0 cannot be told apart there; the cluster map decides.

`xxh3`, and a `crc64` table that does not cover every owned cluster yet (type 7 would call the
missing ones unallocated): external xattrs that every SPDK carries along unread,

    lvolfs.ALGORITHM          u16 version (1), u16 clusters per chunk (496), u32 cluster size,
                              u32 clusters, u32 owned, u32 registered, u64 digest
    lvolfs.ALGORITHM.CHUNK    62 bytes: bit i (LSB first) = cluster 496 * CHUNK + i is registered;
                              then one u64 for each bit set

all little-endian; a chunk without a registered cluster has no xattr. The digest is the
snapshot checksum taken over the registered clusters, so it is the snapshot's own one when
registered = owned, and proves the table whole in any case. For `xxh3` that is XXH3-64 over
the sequence of (u64 LE cluster index, u64 LE checksum) in index order; for `crc64` the
running CRC over the clusters' bytes.

An SPDK that merges a deleted parent into the snapshot does not know these xattrs. It makes
the snapshot own more clusters than the table was made for, and that is how such a table is
recognised: it counts as not registered.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from lvolfs._native.checksum import snapshot_checksum

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm

    # u64 each.
    Values: TypeAlias = array[int] | memoryview[int]

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("xxh3", "crc64")
CHECKSUM_XATTR: Final = "checksum"

_VERSION: Final = 1
_CHUNK_CLUSTERS: Final = 496
_CHUNK_BITMAP: Final = _CHUNK_CLUSTERS // 8
_BITS_OF: Final = [tuple(i for i in range(8) if byte >> i & 1) for byte in range(256)]
_NOT_ZERO: Final = re.compile(rb"[^\0]+")
_SUMMARY: Final = struct.Struct("<HHIIIIQ")
_RECORD: Final = struct.Struct("<QI")
# Fewer values than that are not worth a mapping of their own.
_FEW: Final = 4096


def zero_values(count: int) -> Values:
    """`count` zeros, which take memory only where something else is stored: an lvol of 2^28
    clusters may own but a few."""
    if count <= _FEW:
        return array("Q", bytes(8 * count))
    memory = mmap.mmap(-1, 8 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # EINVAL: a kernel without huge pages.
    with suppress(OSError):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memoryview(memory).cast("Q")


class CorruptTableError(ValueError):
    """A stored table that cannot be believed; the text says why."""


def xattr_prefix(algorithm: Algorithm) -> str:
    return f"lvolfs.{algorithm}"


def is_table_xattr(name: str, algorithm: Algorithm) -> bool:
    prefix = xattr_prefix(algorithm)
    return name == prefix or name.startswith(prefix + ".")


def bit(bitmap: bytes | bytearray, index: int) -> bool:
    return bool(bitmap[index >> 3] >> (index & 7) & 1)


def bits_set(bitmap: bytes | bytearray) -> Iterator[int]:
    """Indexes of the set bits, ascending."""
    for part in _NOT_ZERO.finditer(bitmap):
        base = part.start() << 3
        for byte in part.group():
            for i in _BITS_OF[byte]:
                yield base + i
            base += 8


def without(bitmap: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """The bits of `bitmap` that are not set in `other`."""
    left = int.from_bytes(bitmap, "little") & ~int.from_bytes(other, "little")
    return left.to_bytes(len(bitmap), "little")


def count_bits(bitmap: bytes | bytearray) -> int:
    return int.from_bytes(bitmap, "little").bit_count()


def _all_set(bitmap: bytes, first: int, count: int) -> bool:
    piece = int.from_bytes(bitmap[first >> 3 : (first + count + 7) >> 3], "little") >> (first & 7)
    return (piece & (1 << count) - 1).bit_count() == count


@dataclass(frozen=True)
class ChecksumTable:
    """What is registered for one snapshot under one algorithm.

    owned, registered: bitmaps, bit i LSB first. values: one u64 per cluster, 0 where nothing
    is registered. snapshot_checksum: None until every owned cluster is registered. A snapshot
    of an SPDK that keeps no per-cluster ones has it with nothing registered.
    """

    algorithm: Algorithm
    cluster_size: int
    num_clusters: int
    owned: bytes
    registered: bytes
    values: Values
    snapshot_checksum: int | None

    @property
    def complete(self) -> bool:
        """Every owned cluster has its checksum."""
        return self.registered == self.owned

    @property
    def num_owned(self) -> int:
        return count_bits(self.owned)

    @property
    def num_registered(self) -> int:
        return count_bits(self.registered)

    def _check(self, cluster: int) -> None:
        if not 0 <= cluster < self.num_clusters:
            raise IndexError(f"cluster {cluster} of {self.num_clusters}")

    def state(self, cluster: int) -> Literal["written", "unwritten"]:
        """Whether the snapshot itself owns the cluster."""
        self._check(cluster)
        return "written" if bit(self.owned, cluster) else "unwritten"

    def checksum(self, cluster: int) -> int | None:
        """None for an unwritten cluster and for one that is not registered."""
        self._check(cluster)
        return self.values[cluster] if bit(self.registered, cluster) else None


class ClusterChecksums:
    """Checksums of some of an lvol's clusters, gathered one after the other.

    registered: bitmap, bit i LSB first. values: one u64 per cluster, 0 where there is none.
    """

    def __init__(self, num_clusters: int) -> None:
        self.registered = bytearray(-(-num_clusters // 8))
        self.values = zero_values(num_clusters)

    def note(self, clusters: Iterable[int], values: Iterable[int]) -> None:
        """As many of the one as of the other."""
        for cluster, value in zip(clusters, values, strict=True):
            self.registered[cluster >> 3] |= 1 << (cluster & 7)
            self.values[cluster] = value

    def __len__(self) -> int:
        return count_bits(self.registered)

    def __contains__(self, cluster: int) -> bool:
        return bit(self.registered, cluster)


def make_table(
    algorithm: Algorithm,
    cluster_size: int,
    owned: bytes,
    registered: bytes,
    values: Values,
) -> ChecksumTable:
    """Fills the snapshot checksum in when everything owned is registered."""
    whole = None
    if registered == owned:
        whole = digest(algorithm, cluster_size, registered, values)
    return ChecksumTable(algorithm, cluster_size, len(values), owned, registered, values, whole)


def digest(algorithm: Algorithm, cluster_size: int, registered: bytes, values: Values) -> int:
    """The snapshot checksum over the registered clusters."""
    clusters = array("I", bits_set(registered))
    return snapshot_checksum(algorithm, clusters, _picked(values, clusters), cluster_size)


def _picked(values: Values, clusters: Sequence[int], first: int = 0) -> Values:
    """The values of clusters, which count from `first` on; ascending and without repetition."""
    if clusters and clusters[-1] == len(clusters) - 1:
        return values[first : first + len(clusters)]
    return array("Q", (values[first + c] for c in clusters))


def little_endian(values: Values) -> Values:
    """To or from little-endian."""
    if sys.byteorder == "big":
        swapped = array("Q", values)
        swapped.byteswap()
        return swapped
    return values


def encode_xattrs(table: ChecksumTable) -> dict[str, bytes]:
    prefix = xattr_prefix(table.algorithm)
    found = {
        prefix: _SUMMARY.pack(
            _VERSION,
            _CHUNK_CLUSTERS,
            table.cluster_size,
            table.num_clusters,
            table.num_owned,
            table.num_registered,
            digest(table.algorithm, table.cluster_size, table.registered, table.values),
        )
    }
    for first in range(0, table.num_clusters, _CHUNK_CLUSTERS):
        bitmap = table.registered[first >> 3 : (first + _CHUNK_CLUSTERS) >> 3]
        if any(bitmap):
            packed = little_endian(_picked(table.values, list(bits_set(bitmap)), first)).tobytes()
            found[f"{prefix}.{first // _CHUNK_CLUSTERS}"] = (
                bitmap.ljust(_CHUNK_BITMAP, b"\0") + packed
            )
    return found


def decode_xattrs(
    algorithm: Algorithm,
    xattrs: Mapping[str, bytes],
    *,
    cluster_size: int,
    num_clusters: int,
    owned: bytes,
) -> ChecksumTable | None:
    """The table stored in `xattrs` (others may be among them), None if there is none."""
    prefix = xattr_prefix(algorithm)
    chunks = {
        name[len(prefix) + 1 :]: value
        for name, value in xattrs.items()
        if name.startswith(prefix + ".")
    }
    summary = xattrs.get(prefix)
    if summary is None:
        if chunks:
            raise CorruptTableError(f"xattr {prefix} is missing")
        return None
    if len(summary) != _SUMMARY.size:
        raise CorruptTableError(f"xattr {prefix} has {len(summary)} bytes, not {_SUMMARY.size}")
    version, per_chunk, size, clusters, num_owned, num_registered, whole = _SUMMARY.unpack(summary)
    if (version, per_chunk) != (_VERSION, _CHUNK_CLUSTERS):
        raise CorruptTableError(f"xattr {prefix} is of version {version}/{per_chunk}")
    if (size, clusters) != (cluster_size, num_clusters):
        raise CorruptTableError(f"made for {clusters} clusters of {size} bytes")
    if num_owned != count_bits(owned):
        raise CorruptTableError(
            f"made when the snapshot owned {num_owned} clusters, now {count_bits(owned)}"
        )
    registered = bytearray(len(owned))
    values = zero_values(num_clusters)
    for number, value in chunks.items():
        if not number.isdecimal() or int(number) * _CHUNK_CLUSTERS >= num_clusters:
            raise CorruptTableError(f"xattr {prefix}.{number} is past the end")
        _take_chunk(f"{prefix}.{number}", int(number), value, registered, values)
    if any(mine & ~theirs for mine, theirs in zip(registered, owned, strict=True)):
        raise CorruptTableError("has checksums of clusters that the snapshot does not own")
    if count_bits(registered) != num_registered:
        raise CorruptTableError(f"{count_bits(registered)} clusters of {num_registered} found")
    if digest(algorithm, cluster_size, bytes(registered), values) != whole:
        raise CorruptTableError("the digest does not match the checksums")
    return ChecksumTable(
        algorithm,
        cluster_size,
        num_clusters,
        owned,
        bytes(registered),
        values,
        whole if num_registered == num_owned else None,
    )


def _take_chunk(
    name: str, number: int, value: bytes, registered: bytearray, values: Values
) -> None:
    bitmap, packed = value[:_CHUNK_BITMAP], value[_CHUNK_BITMAP:]
    indexes = list(bits_set(bitmap))
    if len(bitmap) != _CHUNK_BITMAP or len(packed) != 8 * len(indexes):
        raise CorruptTableError(f"xattr {name} has {len(value)} bytes for {len(indexes)} clusters")
    first = number * _CHUNK_CLUSTERS
    if indexes and first + indexes[-1] >= len(values):
        raise CorruptTableError(f"xattr {name} reaches past the last cluster")
    at = first >> 3
    registered[at : at + _CHUNK_BITMAP] = bitmap[: len(registered) - at]
    checksums = little_endian(array("Q", packed))
    if indexes and indexes[-1] == len(indexes) - 1:
        _put(values, first, checksums)
        return
    for i, checksum in zip(indexes, checksums, strict=True):
        values[first + i] = checksum


def _put(values: Values, first: int, new: Values) -> None:
    memoryview(values)[first : first + len(new)] = memoryview(new)


def encode_records(values: Values) -> bytes:
    """Type-7 records of one value per cluster."""
    packed = bytearray()
    zeros = 0
    for value in values:
        if value == 0:
            zeros += 1
            continue
        if zeros:
            packed += _RECORD.pack(0, zeros)
            zeros = 0
        packed += _RECORD.pack(value, 1)
    if zeros:
        packed += _RECORD.pack(0, zeros)
    return bytes(packed)


def decode_records(
    records: bytes,
    checksum: int,
    *,
    cluster_size: int,
    num_clusters: int,
    owned: bytes,
) -> ChecksumTable:
    """The crc64 table out of type-7 records and the `checksum` xattr.

    No records (an SPDK that keeps no per-cluster ones): a table with only the latter.
    """
    if not records:
        nothing = bytes(len(owned))
        return ChecksumTable(
            "crc64",
            cluster_size,
            num_clusters,
            owned,
            nothing,
            zero_values(num_clusters),
            checksum,
        )
    if len(records) % _RECORD.size:
        raise CorruptTableError(f"{len(records)} bytes of records of {_RECORD.size}")
    values = zero_values(num_clusters)
    at = 0
    for value, run in _RECORD.iter_unpack(records):
        if run == 0 or at + run > num_clusters:
            raise CorruptTableError(f"records for more than {num_clusters} clusters")
        if value:
            # Before room is made for them: a run is a few bytes, whatever its length.
            if not _all_set(owned, at, run):
                wrong = next(c for c in range(at, at + run) if not bit(owned, c))
                raise CorruptTableError(f"cluster {wrong} has a checksum but is not owned")
            _put(values, at, array("Q", [value]) * run)
        at += run
    if at != num_clusters:
        raise CorruptTableError(f"records for {at} clusters of {num_clusters}")
    table = make_table("crc64", cluster_size, owned, owned, values)
    if checksum != table.snapshot_checksum:
        raise CorruptTableError("the per-cluster checksums do not add up to the snapshot's")
    return table
