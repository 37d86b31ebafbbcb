"""A benchmark peer: the FUSE lane over one flat file, without a store beneath.

    python -m bench.peers.flat_lane FILE MOUNTPOINT

serves FILE as MOUNTPOINT/flat until it is unmounted. What lvolfs costs on top of this is
what its cluster map costs; what this costs on top of FILE is FUSE.
"""

import contextlib
import os
import sys

import pyfuse3
import trio

from bench.peers.flat_tree import FlatTree
from lvolfs._native.device import Device
from lvolfs._native.lane import Lane


class LaneTree(FlatTree):
    """The file's handles belong to the lane, which answers for its data."""

    def __init__(self, device: Device) -> None:
        super().__init__(device.size)
        self.device = device
        self.lane: Lane | None = None

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
    with Device(path) as device:
        tree = LaneTree(device)
        lane = Lane(mountpoint, f"fsname={path},subtype=flat_lane")
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
