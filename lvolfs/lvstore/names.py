"""Names of stores and lvols, and the text fields that their metadata carry."""

import errno
import uuid
from datetime import UTC, datetime

from lvolfs.blobstore.descriptors import BlobMetadata, decode_name, encode_name

# What Longhorn's SPDK allows. Upstream's loads a store only if no name has more than 63 bytes.
NAME_MAX = 255
NAME_FIELD = 64
LONG_NAME_FIELD = 256


def check_name(name: str, what: str) -> None:
    """Raises OSError(EINVAL or ENAMETOOLONG) unless `name` may name a new store or lvol."""
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        raise OSError(errno.EINVAL, f"{what} name {name!r} is not valid UTF-8") from None
    if not raw:
        raise OSError(errno.EINVAL, f"{what} name is empty")
    if len(raw) > NAME_MAX:
        raise OSError(
            errno.ENAMETOOLONG,
            f"{what} name {name!r} has {len(raw)} bytes; at most {NAME_MAX} are allowed",
        )
    if "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, f"{what} name {name!r} contains '/' or NUL")
    if name in {".", ".."}:
        raise OSError(errno.EINVAL, f"{what} name {name!r} is reserved")


def fits_a_file_name(name: str) -> bool:
    """Whether a name found on disk can be shown in a directory."""
    return bool(name) and "/" not in name and name not in {".", ".."}


def name_field(name: str) -> bytes:
    """The name xattr of a new lvol: a fixed field, padded with NUL. That of upstream's SPDK if
    the name fits, else that of Longhorn's."""
    raw = encode_name(name)
    return raw.ljust(NAME_FIELD if len(raw) < NAME_FIELD else LONG_NAME_FIELD, b"\0")


def renamed_field(name: str) -> bytes:
    """The name xattr after a rename, and of a store: the name and one NUL."""
    return encode_name(name) + b"\0"


def text_field(metadata: BlobMetadata, name: str) -> str | None:
    """The text of a NUL-terminated xattr, None without it."""
    value = metadata.xattrs.get(name)
    return None if value is None else decode_name(value.split(b"\0", 1)[0])


def uuid_field(metadata: BlobMetadata) -> str | None:
    """The uuid xattr in canonical form, None if it is missing or no uuid."""
    text = text_field(metadata, "uuid")
    try:
        return None if text is None else str(uuid.UUID(text))
    except ValueError:
        return None


def new_identity(name: str) -> dict[str, bytes]:
    """The xattrs that a new lvol, snapshot or clone begins with."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "name": name_field(name),
        "uuid": str(uuid.uuid4()).encode() + b"\0",
        "creation_time": now.encode() + b"\0",
    }
