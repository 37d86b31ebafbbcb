"""Regular files and block devices as destinations."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import ExitStack
from typing import NoReturn

from lvolfs._native.endpoint import Endpoint
from lvolfs.bdev.destination import Destination
from lvolfs.bdev.openers import lease_refused, loop_device_of, mounted_at, writer_of
from lvolfs.bdev.rights import as_client, has_every_right

_BLKROGET = 0x125E


def open_file(path: str) -> Destination:
    """Opens and locks a regular file or block device for writing.

    OSError: ENOENT, EINVAL for anything else than those two, EROFS for a read-only device,
    EBUSY when it is mounted, behind a loop device, locked (an open store is), or open for
    writing elsewhere.
    """
    try:
        status = as_client(os.stat, path)
    except OSError as error:
        raise OSError(
            error.errno, f"destination '{path}': {error.strerror}; it must exist with its full size"
        ) from None
    is_block = stat.S_ISBLK(status.st_mode)
    if not (is_block or stat.S_ISREG(status.st_mode)):
        raise OSError(
            errno.EINVAL, f"destination '{path}' is neither a regular file nor a block device"
        )
    held = ExitStack()
    try:
        open_it = _open_block if is_block else _open_regular
        descriptor = open_it(path, status, held)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        endpoint = Endpoint.of_file(descriptor, size, f"'{path}'")
        held.callback(endpoint.close)
    except BaseException:
        held.close()
        raise
    return Destination("block device" if is_block else "file", path, size, endpoint, held)


def _open(path: str, status: os.stat_result, flags: int, held: ExitStack) -> int:
    """What is opened is what was looked at, so that everything said of `status` is of that."""
    try:
        # O_NONBLOCK: it may have become a FIFO since it was looked at, which would wait for ever.
        descriptor = as_client(os.open, path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise OSError(error.errno, f"destination '{path}': {error.strerror}") from None
    held.callback(os.close, descriptor)
    if not os.path.samestat(os.fstat(descriptor), status):
        raise OSError(errno.EINVAL, f"destination '{path}' has just been replaced")
    return descriptor


def _busy(path: str, why: str) -> NoReturn:
    raise OSError(errno.EBUSY, f"destination '{path}' {why}")


def _lock(path: str, descriptor: int, writer: str | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _busy(
            path,
            f"is locked by {writer or 'another process'}: "
            "an open store or another copy; close it first",
        )


def _open_regular(path: str, status: os.stat_result, held: ExitStack) -> int:
    with ExitStack() as briefly:
        # Before we open it for writing ourselves, or every answer would be "yes".
        reader = _open(path, status, os.O_RDONLY, briefly)
        device = loop_device_of(status)
        if device is not None:
            _busy(path, f"is the backing file of {device}; detach that first (losetup -d {device})")
        refused = lease_refused(reader)
        # Asking every process takes a while; not where the kernel is sure that there is none.
        writer = writer_of(status) if refused is not False else None
    descriptor = _open(path, status, os.O_RDWR, held)
    _lock(path, descriptor, writer)
    if refused or writer is not None:
        _busy(path, f"is open for writing elsewhere: {writer or 'by another process'}")
    return descriptor


def _open_block(path: str, status: os.stat_result, held: ExitStack) -> int:
    with ExitStack() as briefly:
        # Who may not open it is told that, and not who uses it.
        _open(path, status, os.O_RDONLY, briefly)
    where = mounted_at(status)
    if where is not None:
        _busy(path, f"is mounted at {where}; unmount it first")
    writer = writer_of(status)
    try:
        # On a block device O_EXCL without O_CREAT means: nobody else may have claimed it
        # (mounted, part of a RAID, a partition of it in use, ...).
        descriptor = _open(path, status, os.O_RDWR | os.O_EXCL, held)
    except OSError as error:
        if error.errno == errno.EBUSY:
            _busy(path, "is in use by the kernel or another process; release it first")
        if error.errno in (errno.EROFS, errno.EACCES) and has_every_right():
            raise OSError(errno.EROFS, f"destination '{path}' is a read-only device") from None
        raise
    read_only = struct.unpack("i", fcntl.ioctl(descriptor, _BLKROGET, bytes(4)))[0]
    if read_only:
        raise OSError(errno.EROFS, f"destination '{path}' is a read-only device")
    _lock(path, descriptor, writer)
    if writer is not None:
        _busy(path, f"is open for writing elsewhere: {writer}")
    return descriptor
