"""What another process needs to compare with a store, or to rebuild into it.

Bitmaps and arrays travel as base64: bitmaps LSB first, checksums as little-endian u64. Replies
are pages of at most MAX_PAGE clusters.
"""

import base64
import errno
from array import array
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from lvolfs.delta import checksums as registration
from lvolfs.delta.checksum_table import ALGORITHMS, ClusterChecksums, bits_set, little_endian
from lvolfs.delta.content import ZEROS, LvolContent
from lvolfs.delta.diff import diff
from lvolfs.rpc.remote_content import encode_values
from lvolfs.rpc.table import U64, always_large, own_method
from lvolfs.rpc.target import Target

if TYPE_CHECKING:
    from lvolfs.delta.checksum_table import Values

Algorithm = Literal["xxh3", "crc64"]

MAX_PAGE = 1 << 20
Count = Annotated[int, pydantic.Field(ge=0, le=MAX_PAGE)]

PROGRESS_XATTR = "lvolfs.rebuild"


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def decode_values(data: bytes) -> "Values":
    if len(data) % 8:
        raise OSError(errno.EINVAL, f"{len(data)} bytes are no u64 checksums")
    return little_endian(array("Q", data))


def decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{text[:40]!r} is not base64") from error


def _slice_bitmap(bitmap: bytes, first: int, count: int) -> bytes:
    """Bits first..first+count-1; first is a multiple of 8."""
    if first % 8:
        raise OSError(errno.EINVAL, f"first is {first}: give a multiple of 8")
    return bitmap[first // 8 : (first + count + 7) // 8]


@own_method("lvolfs_diff", takes_long=True, is_large=always_large)
def diff_lvols(target: Target, *, a: str, b: str) -> dict[str, Any]:
    """The clusters that differ between what two lvols show."""
    return diff(target.find_lvol(a), target.find_lvol(b)).as_dict()


@own_method("lvolfs_get_content", takes_long=True, is_large=always_large)
def get_content(
    target: Target, *, name: str, first: U64 = 0, count: Count = MAX_PAGE
) -> dict[str, Any]:
    """What an lvol shows through its chain: zeros, and registered checksums of the rest."""
    lvol = target.find_lvol(name)
    content = LvolContent(lvol)
    places = content.places()
    count = max(min(count, len(places) - first), 0)
    zeros = bytearray(-(-count // 8))
    for index, place in enumerate(places[first : first + count]):
        if place == ZEROS:
            zeros[index >> 3] |= 1 << (index & 7)
    known: dict[str, Any] = {}
    for algorithm in ALGORITHMS:
        bitmap, values = content.known(algorithm)
        known[algorithm] = {
            "known": encode(_slice_bitmap(bitmap, first, count)),
            "checksums": encode_values(values[first : first + count]),
        }
    return {
        "num_clusters": lvol.num_clusters,
        "count": count,
        "zeros": encode(bytes(zeros)),
        **known,
    }


@own_method("lvolfs_get_checksum_table", takes_long=True, is_large=always_large)
def get_checksum_table(
    target: Target, *, name: str, algorithm: Algorithm, first: U64 = 0, count: Count = MAX_PAGE
) -> dict[str, Any] | None:
    """A page of the registered checksums of the clusters that an lvol owns itself."""
    table = registration.table(target.find_lvol(name), algorithm)
    if table is None:
        return None
    count = max(min(count, table.num_clusters - first), 0)
    return {
        "num_clusters": table.num_clusters,
        "count": count,
        "snapshot_checksum": table.snapshot_checksum,
        "owned": encode(_slice_bitmap(table.owned, first, count)),
        "registered": encode(_slice_bitmap(table.registered, first, count)),
        "checksums": encode_values(table.values[first : first + count]),
    }


@own_method("lvolfs_add_checksums", takes_long=True)
def add_checksums(
    target: Target,
    *,
    name: str,
    algorithm: Algorithm,
    first: U64,
    registered: str,
    checksums: str,
) -> bool:
    """Registers checksums that the caller knows without the clusters being read.

    registered: bitmap from `first` on, a multiple of 8; checksums: one for each bit set. What
    is registered already stays. A rebuild passes on those of clusters that it did not touch.
    """
    lvol = target.find_lvol(name)
    clusters = [first + index for index in bits_set(decode(registered))]
    values = decode_values(decode(checksums))
    if (
        first % 8
        or len(values) != len(clusters)
        or (clusters and clusters[-1] >= lvol.num_clusters)
    ):
        raise OSError(
            errno.EINVAL,
            f"{len(values)} checksums for {len(clusters)} clusters from {first} on, of the "
            f"{lvol.num_clusters} of lvol {lvol.name!r}; first has to be a multiple of 8",
        )
    known = ClusterChecksums(lvol.num_clusters)
    known.note(clusters, values)
    registration.add(lvol, algorithm, known)
    return True


@own_method("lvolfs_snapshot")
def snapshot(
    target: Target, *, name: str, snapshot_name: str, xattrs: dict[str, str] | None = None
) -> str:
    """As bdev_lvol_snapshot; the values of the xattrs are base64, so any bytes."""
    values = {key: decode(value) for key, value in (xattrs or {}).items()}
    return target.find_lvol(name).snapshot(snapshot_name, values).uuid


@own_method("lvolfs_set_xattr")
def set_xattr(target: Target, *, name: str, xattr_name: str, value: str | None) -> bool:
    """value is base64; null removes the xattr."""
    lvol = target.find_lvol(name)
    if value is None:
        lvol.remove_xattr(xattr_name)
    else:
        lvol.set_xattr(xattr_name, decode(value))
    return True


@own_method("lvolfs_get_rebuild_progress")
def get_rebuild_progress(target: Target, *, name: str) -> dict[str, str]:
    lvol = target.find_lvol(name)
    with lvol.store.lock:
        xattrs = dict(lvol.metadata.xattrs)
    return {k: encode(value) for k, value in xattrs.items() if k.startswith(PROGRESS_XATTR)}


@own_method("lvolfs_set_rebuild_progress")
def set_rebuild_progress(target: Target, *, name: str, updates: dict[str, str | None]) -> bool:
    """Sets, or removes where null, xattrs called lvolfs.rebuild*, in one durable change."""
    wrong = [key for key in updates if not key.startswith(PROGRESS_XATTR)]
    if wrong:
        raise OSError(errno.EPERM, f"xattr {wrong[0]!r} is none of a rebuild's progress")
    target.find_lvol(name).set_reserved_xattrs(
        {key: None if value is None else decode(value) for key, value in updates.items()}
    )
    return True
