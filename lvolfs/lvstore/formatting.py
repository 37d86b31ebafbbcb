"""Making a new store on a file or block device."""

import errno
import fcntl
import os
import stat
import struct
import uuid
from dataclasses import replace
from pathlib import Path

from lvolfs._native.device import Device
from lvolfs.blobstore.check import open_engine
from lvolfs.blobstore.descriptors import BlobMetadata
from lvolfs.blobstore.superblock import PAGE, SIGNATURE, plan_superblock
from lvolfs.lvstore.names import check_name, renamed_field

BLKDISCARD = 0x1277
# How much of a device's beginning has to be zeros for it to count as empty.
EMPTY_SIZE = 1 << 20

# (offset, bytes, what it is): the marks by which other contents are known
_MARKS = (
    (0, SIGNATURE, "an SPDK blobstore"),
    (0x438, b"\x53\xef", "an ext2/3/4 file system"),
    (0, b"XFSB", "an xfs file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (512, b"LABELONE", "an LVM physical volume"),
    (512, b"EFI PART", "a GPT partition table"),
    (PAGE - 10, b"SWAPSPACE2", "swap space"),
    (510, b"\x55\xaa", "a boot sector"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
)


def name_content(beginning: bytes) -> str | None:
    """What the first bytes of a device hold, None if they are zeros."""
    if not any(beginning):
        return None
    for offset, mark, title in _MARKS:
        if beginning[offset : offset + len(mark)] == mark:
            return title
    return "data"


def format_store(
    path: str,
    *,
    size: int | None,
    cluster_size: int,
    name: str,
    block_size: int | None,
    force: bool,
    md_ratio: int,
    md_page_size: int = PAGE,
    discard: bool = True,
) -> None:
    """Writes an empty store. A file that is not there is made, `size` bytes long. Without
    `discard` the space behind the metadata stays as it is; volumes never show what was there.

    Raises OSError: EEXIST for a device that holds anything already (unless `force`), EINVAL
    for sizes that do not fit, ENOSPC where the metadata alone would fill it, EBUSY when it
    is in use. A file made here is removed again on an error.
    """
    check_name(name, "store")
    made = _make_file(path, size)
    try:
        with Device(path) as device:
            if not force:
                _check_empty(device)
            superblock = plan_superblock(
                device.size if size is None else size,
                cluster_size=cluster_size,
                block_size=block_size or (device.block_size if device.is_block else PAGE),
                page_size=md_page_size,
                md_ratio=md_ratio,
            )
            _fit_size(device, size)
            metadata_size = (superblock.md_start + superblock.md_len) * superblock.page_size
            if discard:
                _discard(device, metadata_size)
            device.zero(0, metadata_size)
            device.flush()
            engine = open_engine(device, superblock, read_only=False)
            try:
                engine.write_superblock(superblock.pack())
                metadata = BlobMetadata()
                metadata.xattrs["uuid"] = str(uuid.uuid4()).encode() + b"\0"
                metadata.xattrs["name"] = renamed_field(name)
                with engine.exclusive():
                    blob = engine.create_blob(0, thin=False, head=metadata.pack_head())
                    engine.persist(blob)
                    engine.write_superblock(replace(superblock, super_blob=blob.id).pack())
            finally:
                engine.close()
        if made:
            _sync_directory(Path(path).resolve().parent)
    except BaseException:
        if made:
            Path(path).unlink(missing_ok=True)
        raise


def _make_file(path: str, size: int | None) -> bool:
    """Makes the file if nothing is at `path`; tells whether it did."""
    if size is not None and size <= 0:
        raise OSError(errno.EINVAL, f"size {size} of store {path!r}: it must be positive")
    try:
        stat_result = Path(path).stat()
    except FileNotFoundError:
        if size is None:
            raise OSError(
                errno.ENOENT, f"{path!r} does not exist; give a size to make it a file"
            ) from None
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            Path(path).unlink()
            raise OSError(
                error.errno, f"{path!r} cannot have {size} bytes: {error.strerror}"
            ) from error
        finally:
            os.close(fd)
        return True
    if stat.S_ISDIR(stat_result.st_mode):
        raise OSError(errno.EISDIR, f"{path!r} is a directory, not a file or block device")
    return False


def _sync_directory(path: Path) -> None:
    """A new file is there after a power cut only when its directory's entry is durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_empty(device: Device) -> None:
    found = name_content(device.pread(min(EMPTY_SIZE, device.size), 0))
    if found is not None:
        raise OSError(
            errno.EEXIST,
            f"{device.path!r} holds {found} already; to overwrite it, "
            "create with --force (in Python: force=True)",
        )


def _fit_size(device: Device, size: int | None) -> None:
    """Extends a file that is shorter than asked for; a block device has the size it has."""
    if size is None or size <= device.size:
        return
    if device.is_block:
        raise OSError(
            errno.EINVAL, f"{device.path!r} has {device.size} bytes, less than the {size} wanted"
        )
    os.ftruncate(device.fileno(), size)
    device.refresh_size()


def _discard(device: Device, start: int) -> None:
    """Gives back the space from `start` on, where the host can; nothing depends on it."""
    length = device.size - start
    if length <= 0:
        return
    if not device.is_block:
        device.zero(start, length)
        return
    try:
        fcntl.ioctl(device.fileno(), BLKDISCARD, struct.pack("QQ", start, length))
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}:
            raise
