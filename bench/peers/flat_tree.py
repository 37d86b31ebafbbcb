"""A root directory with the one file "flat": what the two small pyfuse3 peers have in common."""

import errno
import os
import stat

import pyfuse3

FLAT_INODE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)


class FlatTree(pyfuse3.Operations):
    """Attributes and names, cached by the kernel; what happens to data is left to subclasses."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700)
        if inode == FLAT_INODE:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600)
            entry.st_size = self.size
            entry.st_blocks = self.size // 512
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.entry_timeout = entry.attr_timeout = 60
        return entry

    async def getattr(self, inode, ctx=None):  # type: ignore[no-untyped-def]
        return self.attributes(inode)

    async def lookup(self, parent_inode, name, ctx=None):  # type: ignore[no-untyped-def]
        if name != b"flat":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.attributes(FLAT_INODE)

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        return self.attributes(inode)
