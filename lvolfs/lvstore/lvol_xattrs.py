"""Xattrs of an lvol, as SPDK keeps them: in its metadata chain, durable when set."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lvolfs.blobstore.descriptors import XATTR_ROOM, BlobMetadata, encode_name, xattr_size

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol

IDENTITY = ("name", "uuid", "creation_time")
CHECKSUM = "checksum"
OWN_PREFIX = "lvolfs."
# tables of registered checksums, in chunks
TABLES = ("lvolfs.xxh3", "lvolfs.crc64")


def is_reserved(name: str) -> bool:
    """Names that users may read but not set: identity and registered checksums."""
    return name in IDENTITY or name == CHECKSUM or name.startswith(OWN_PREFIX)


def check_xattr(lvol_name: str, name: str, value: bytes) -> None:
    """Raises OSError unless SPDK could store this xattr (EINVAL, E2BIG)."""
    if not name or "\0" in name:
        raise OSError(errno.EINVAL, f"xattr name {name!r} of lvol {lvol_name!r} is not valid")
    if len(encode_name(name)) > 255:
        raise OSError(errno.E2BIG, f"xattr name {name!r} is longer than 255 bytes")
    if xattr_size(name, value) > XATTR_ROOM:
        raise OSError(
            errno.E2BIG,
            f"xattr {name!r} of lvol {lvol_name!r} has {len(value)} bytes; name and value "
            f"together may have {XATTR_ROOM}",
        )


def user_xattrs(metadata: BlobMetadata) -> list[str]:
    return sorted(name for name in metadata.xattrs if not is_reserved(name))


def changed(lvol: Lvol, updates: Mapping[str, bytes | None]) -> BlobMetadata:
    """A copy of the lvol's metadata with xattrs set, or removed where the value is None."""
    metadata = lvol.metadata.copy()
    for name, value in updates.items():
        if value is None:
            metadata.xattrs.pop(name, None)
        else:
            check_xattr(lvol.name, name, value)
            metadata.xattrs[name] = bytes(value)
    return metadata


def without_checksums(metadata: BlobMetadata) -> BlobMetadata:
    """A copy without registered checksums, for when an lvol's own clusters change."""
    copy = metadata.copy()
    for name in list(copy.xattrs):
        if name == CHECKSUM or name.startswith(("lvolfs.xxh3", "lvolfs.crc64")):
            del copy.xattrs[name]
    return copy
