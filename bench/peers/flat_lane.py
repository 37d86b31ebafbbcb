"""A benchmark peer: the FUSE lane over one flat file, without a store beneath.

    python bench/peers/flat_lane.py FILE MOUNTPOINT

serves FILE as MOUNTPOINT/flat until it is unmounted. What lvolfs costs on top of this is
what its cluster map costs; what this costs on top of FILE is FUSE.
"""

import contextlib
import os
import stat
import sys
import time

import pyfuse3
import trio

from lvolfs._native.device import Device
from lvolfs._native.lane import Lane

FLAT_INODE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)


class FlatTree(pyfuse3.Operations):
    """A root directory with the one file "flat"."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.lane: Lane | None = None

    def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700)
        if inode == FLAT_INODE:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600)
            entry.st_size = self.device.size
            entry.st_blocks = self.device.size // 512
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = time.time_ns()
        entry.entry_timeout = entry.attr_timeout = 60
        return entry

    async def getattr(self, inode, ctx=None):  # type: ignore[no-untyped-def]
        return self.attributes(inode)

    async def lookup(self, parent_inode, name, ctx=None):  # type: ignore[no-untyped-def]
        if name != b"flat":
            raise pyfuse3.FUSEError(2)
        return self.attributes(FLAT_INODE)

    async def opendir(self, inode, ctx):  # type: ignore[no-untyped-def]
        return pyfuse3.FileHandleT(1)

    async def readdir(self, fh, start_id, token):  # type: ignore[no-untyped-def]
        if start_id == 0:
            pyfuse3.readdir_reply(token, b"flat", self.attributes(FLAT_INODE), 1)

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        return self.attributes(inode)

    async def open(self, inode, flags, ctx):  # type: ignore[no-untyped-def]
        assert self.lane is not None
        handle = self.lane.open_device(self.device, may_write=flags & os.O_ACCMODE != os.O_RDONLY)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True)

    async def release(self, fh):  # type: ignore[no-untyped-def]
        assert self.lane is not None
        self.lane.close_handle(fh)


async def wait_for_end(lane: Lane) -> None:
    """The lane's first message can only be that the mount is gone: nothing here grows."""
    await trio.lowlevel.wait_readable(lane.control_fd)
    pyfuse3.terminate()


async def serve(lane: Lane) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_end, lane)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main() -> None:
    path, mountpoint = sys.argv[1:3]
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else None
    with Device(path) as device:
        tree = FlatTree(device)
        lane = Lane(mountpoint, f"fsname={path},subtype=flat_lane", threads=threads)
        tree.lane = lane
        pyfuse3.init(tree, lane.hand_over(), set())
        lane.start()
        try:
            trio.run(serve, lane)
        finally:
            with contextlib.suppress(OSError):
                pyfuse3.close(unmount=False)
            lane.stop()


if __name__ == "__main__":
    main()
