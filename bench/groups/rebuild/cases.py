"""The rebuild cases, and when which contestant has its two sides on the disk.

All contestants' data together would fit neither into memory nor onto a small disk. So where
the volume is large, one contestant after the other is set up, measured in all rounds, and torn
down. Where all fit, all are set up and the rounds interleave them.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.case import Case, Sample
from bench.groups.rebuild.contestant import Contestant
from bench.groups.rebuild.plain_files import FullCopy, Rsync
from bench.groups.rebuild.qcow2 import DirtyBitmap
from bench.groups.rebuild.snapshots import Btrfs, ZfsFuse
from bench.groups.rebuild.stores import CommandRebuild, DeltaRebuild, FullRebuild
from bench.peers.block_files import scratch_directory
from bench.processes import ProgramError
from bench.settings import GIB, Settings

CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    "lvolfs": DeltaRebuild,
    "lvolfs command": CommandRebuild,
    "full rebuild": FullRebuild,
    "full copy": FullCopy,
    "rsync": Rsync,
    "btrfs": Btrfs,
    "zfs-fuse": ZfsFuse,
    "qemu bitmap": DirtyBitmap,
}
FAMILIES = {"lvolfs command": "lvolfs", "full rebuild": "lvolfs", "rsync": "full copy"}
"""Who works on whose two sides: they are equal whenever one of them has done its work."""
SHARES = {"0.1": 0.001, "1": 0.01, "5": 0.05, "10": 0.1, "100": 1.0}
ONE_SHARE = {"full copy", "full rebuild"}
"""Copy everything whatever changed: measured at 1 % only."""
LEFT_OUT = {"rsync": {"0.1", "5"}, "btrfs": {"100"}, "zfs-fuse": {"0.1", "100"}}
"""rsync reads both sides whole whatever changed: fewer shares tell the same. The others keep
old and new snapshot: twice the disk on both sides when everything has changed."""
SLOW = {"rsync": 1, "full rebuild": 2, "full copy": 2, "btrfs": 3, "qemu bitmap": 3}
ONCE = {"10", "100"}
"""Measured once."""


class Pairs:
    """The contestants' two sides, made on first use, a directory for each family."""

    def __init__(self, parent: Path, size: int) -> None:
        self.parent = parent
        self.size = size
        self.stack = contextlib.ExitStack()
        self.directories: dict[str, Path] = {}
        self.made: dict[str, Contestant] = {}
        self.failed: dict[str, Exception] = {}
        self.verified: set[str] = set()
        self.seed = 0

    def __getitem__(self, name: str) -> Contestant:
        if name in self.failed:
            raise self.failed[name]
        if name not in self.made:
            family = FAMILIES.get(name, name)
            if family not in self.directories:
                scratch = scratch_directory(self.parent)
                self.directories[family] = self.stack.enter_context(scratch)
            contestant = CONTESTANTS[name]()
            self.stack.callback(contestant.close)
            try:
                contestant.open(self.directories[family], self.size)
            except (OSError, ProgramError) as error:
                self.failed[name] = error
                raise
            self.made[name] = contestant
        return self.made[name]

    def measure(self, name: str, share: float) -> Sample:
        pair = self[name]
        self.seed += 1
        changed = pair.change(share, self.seed)
        sample = pair.update()
        if FAMILIES.get(name, name) == "lvolfs" or name not in self.verified:
            pair.verify()
            self.verified.add(name)
        return sample | {"changed": float(changed)}


def rebuild_cases(
    pairs: Pairs, names: list[str], settings: Settings, shares: tuple[str, ...], prefix: str
) -> list[Case]:
    cases = []
    for percent in shares:
        share = SHARES[percent]
        who = [
            name
            for name in names
            if not (name in ONE_SHARE and percent != "1")
            and percent not in LEFT_OUT.get(name, set())
        ]

        def measure(name: str, share: float = share) -> Sample:
            return pairs.measure(name, share)

        limits = dict(SLOW)
        if settings.quick or percent in ONCE:
            limits = dict.fromkeys(who, 1)
        if who:
            cases.append(
                Case(
                    f"{prefix}.{percent}",
                    f"replica of {pairs.size / GIB:g} GiB, {percent} % changed",
                    "s",
                    tuple(who),
                    measure,
                    "less",
                    limits,
                    sequential=prefix == "rebuild" and not settings.rebuild_together,
                )
            )
    return cases


def opener(
    *names: str,
    most: int | None = None,
    shares: tuple[str, ...] = tuple(SHARES),
    prefix: str = "rebuild",
) -> Callable[[Settings], contextlib.AbstractContextManager[list[Case]]]:
    """`most`: bytes of the volume, at most."""

    @contextlib.contextmanager
    def open_group(settings: Settings) -> Iterator[list[Case]]:
        size = min(settings.rebuild_size, most or settings.rebuild_size)
        pairs = Pairs(settings.directory, size)
        with pairs.stack:
            yield rebuild_cases(pairs, list(names), settings, shares, prefix)

    return open_group


ZFS = {
    "rebuild-zfs": opener(
        "lvolfs", "zfs-fuse", most=GIB, shares=("1", "5", "10"), prefix="rebuild.zfs"
    )
}
"""zfs-fuse takes minutes to fill pools of 8 GiB; beside it, lvolfs has a smaller volume, too."""
TOGETHER = {"rebuild": opener(*(name for name in CONTESTANTS if name != "zfs-fuse")), **ZFS}
IN_TURN = {
    "rebuild-lvolfs": opener("lvolfs", "lvolfs command", "full rebuild"),
    "rebuild-files": opener("full copy", "rsync"),
    "rebuild-btrfs": opener("btrfs"),
    **ZFS,
    "rebuild-qemu": opener("qemu bitmap"),
}
