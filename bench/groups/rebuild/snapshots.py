"""File systems that send what changed between two snapshots: btrfs on loop devices, zfs-fuse."""

import contextlib
import time
from pathlib import Path

from bench.case import Sample
from bench.content import Content, scattered
from bench.peers.block_files import loop_file_system
from bench.processes import ProgramError, daemon, execute
from bench.settings import MIB


class Btrfs:
    """btrfs send -p OLD NEW | btrfs receive, until the receiving file system is synced."""

    def open(self, directory: Path, size: int) -> None:
        self.size, self.number = size, 0
        self.stack = contextlib.ExitStack()
        # An extent that is overwritten in part keeps its whole room.
        room = 2 * size + 1024 * MIB
        self.source, self.replica = (
            self.stack.enter_context(loop_file_system(directory / name, room, "mkfs.btrfs", "-q"))
            for name in ("source.img", "replica.img")
        )
        execute("btrfs", "subvolume", "create", self.source / "v")
        Content().fill(self.source / "v/data", size)
        self.snapshot()
        execute("bash", "-c", f"btrfs send -q {self.source}/s0 | btrfs receive -q {self.replica}")

    def snapshot(self) -> None:
        name = self.source / f"s{self.number}"
        execute("btrfs", "subvolume", "snapshot", "-r", self.source / "v", name)
        execute("btrfs", "filesystem", "sync", self.source)

    def change(self, share: float, seed: int) -> int:
        numbers = scattered(self.size // MIB, share, seed)
        for side in (self.source, self.replica) if self.number else ():
            execute("btrfs", "subvolume", "delete", "-c", side / f"s{self.number - 1}")
            execute("btrfs", "filesystem", "sync", side)
        Content().write_blocks(self.source / "v/data", numbers)
        self.number += 1
        self.snapshot()
        return len(numbers) * MIB

    def update(self) -> Sample:
        old, new = (self.source / f"s{n}" for n in (self.number - 1, self.number))
        start = time.monotonic()
        execute(
            "bash",
            "-c",
            f"set -o pipefail; btrfs send -q -p {old} {new} | btrfs receive -q {self.replica}",
        )
        execute("btrfs", "filesystem", "sync", self.replica)
        return {"value": time.monotonic() - start}

    def verify(self) -> None:
        name = f"s{self.number}"
        execute("cmp", self.source / name / "data", self.replica / name / "data")

    def close(self) -> None:
        self.stack.close()


class ZfsFuse:
    """zfs send -i OLD NEW | zfs recv -F between two pools on files, by Debian's zfs-fuse.

    The replica's pool is the last one made, and its file is synced, too.
    """

    def open(self, directory: Path, size: int) -> None:
        self.size, self.number = size, 0
        self.stack = contextlib.ExitStack()
        self.pools = [f"lvolfsbench{side}{directory.name[-4:]}" for side in ("a", "b")]
        self.mountpoints = [directory / "a", directory / "b"]
        if not answers():
            options = ("--no-kstat-mount", "-a", "1", "-e", "1", "-m", "1024")
            served = daemon("zfs-fuse", "--no-daemon", *options, ready=answers)
            self.stack.enter_context(served)
        for pool, mountpoint in zip(self.pools, self.mountpoints, strict=True):
            self.replica_image = image = directory / f"{pool}.img"
            with image.open("xb") as file:
                file.truncate(size * 3 // 2 + 1024 * MIB)
            execute("zpool", "create", "-O", "atime=off", "-m", mountpoint, pool, image)
            self.stack.callback(destroy_pool, pool)
        execute("zfs", "create", f"{self.pools[0]}/v")
        Content().fill(self.mountpoints[0] / "v/data", size)
        self.snapshot()
        execute("bash", "-c", f"zfs send {self.pools[0]}/v@s0 | zfs recv {self.pools[1]}/v")

    def snapshot(self) -> None:
        execute("zfs", "snapshot", f"{self.pools[0]}/v@s{self.number}")

    def change(self, share: float, seed: int) -> int:
        numbers = scattered(self.size // MIB, share, seed)
        for pool in self.pools if self.number else ():
            execute("zfs", "destroy", f"{pool}/v@s{self.number - 1}")
        Content().write_blocks(self.mountpoints[0] / "v/data", numbers)
        self.number += 1
        self.snapshot()
        return len(numbers) * MIB

    def update(self) -> Sample:
        a, b = self.pools
        old, new = f"{a}/v@s{self.number - 1}", f"{a}/v@s{self.number}"
        start = time.monotonic()
        execute("bash", "-c", f"set -o pipefail; zfs send -i {old} {new} | zfs recv -F {b}/v")
        execute("sync", self.replica_image)
        return {"value": time.monotonic() - start}

    def verify(self) -> None:
        # zfs-fuse leaves the kernel with pages of before the recv.
        execute("zfs", "unmount", f"{self.pools[1]}/v")
        execute("zfs", "mount", f"{self.pools[1]}/v")
        execute("cmp", *(mountpoint / "v/data" for mountpoint in self.mountpoints))

    def close(self) -> None:
        self.stack.close()


def destroy_pool(pool: str) -> None:
    """A pool stays busy for a moment after its files were closed."""
    deadline = time.monotonic() + 10
    while True:
        try:
            execute("zpool", "destroy", "-f", pool)
        except ProgramError as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def answers() -> bool:
    try:
        execute("zpool", "list")
    except ProgramError:
        return False
    return True
