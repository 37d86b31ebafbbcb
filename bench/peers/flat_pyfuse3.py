"""A benchmark peer: the least file system that pyfuse3 can be, over one flat file.

    python bench/peers/flat_pyfuse3.py FILE MOUNTPOINT

serves FILE as MOUNTPOINT/flat until it is unmounted: what a file system costs whose data
requests are answered in Python.
"""

import os
import stat
import sys

import pyfuse3
import trio

FLAT_INODE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)


class FlatFile(pyfuse3.Operations):
    """A root directory with the one file "flat"; reads and writes are pread and pwrite."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.fd = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.fd).st_size

    def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700)
        if inode == FLAT_INODE:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600)
            entry.st_size = self.size
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.entry_timeout = entry.attr_timeout = 60
        return entry

    async def getattr(self, inode, ctx=None):  # type: ignore[no-untyped-def]
        return self.attributes(inode)

    async def lookup(self, parent_inode, name, ctx=None):  # type: ignore[no-untyped-def]
        if name != b"flat":
            raise pyfuse3.FUSEError(2)
        return self.attributes(FLAT_INODE)

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        return self.attributes(inode)

    async def open(self, inode, flags, ctx):  # type: ignore[no-untyped-def]
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(1), keep_cache=True)

    async def read(self, fh, off, size):  # type: ignore[no-untyped-def]
        return os.pread(self.fd, size, off)

    async def write(self, fh, off, buf):  # type: ignore[no-untyped-def]
        return os.pwrite(self.fd, buf, off)

    async def fsync(self, fh, datasync):  # type: ignore[no-untyped-def]
        os.fdatasync(self.fd)

    async def flush(self, fh):  # type: ignore[no-untyped-def]
        pass

    async def release(self, fh):  # type: ignore[no-untyped-def]
        pass


def main() -> None:
    path, mountpoint = sys.argv[1:3]
    options = set(pyfuse3.default_options) | {"fsname=flat_pyfuse3"}
    pyfuse3.init(FlatFile(path), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
