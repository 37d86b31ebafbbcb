"""A benchmark peer: the least file system that pyfuse3 can be, over one flat file.

    python -m bench.peers.flat_pyfuse3 FILE MOUNTPOINT

serves FILE as MOUNTPOINT/flat until it is unmounted: what a file system costs whose data
requests are answered in Python.
"""

import os
import sys

import pyfuse3
import trio

from bench.peers.flat_tree import FlatTree


class FlatFile(FlatTree):
    """Reads and writes are pread and pwrite."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR)
        super().__init__(os.fstat(self.fd).st_size)

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
