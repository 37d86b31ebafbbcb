"""What the figures have to be: each row of the ratio table, and whether it is met."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.case import Outcome

Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Row:
    """One judged row. `measured` is None when its cases were not run.

    `reached`: whether the best round at least met the target; None where rounds have no figures
    of their own. `ceiling`: what a contestant measured that does part of the work and nothing else;
    `ceiling_name` is its name.
    """

    title: str
    target: str
    measured: float | None
    spread: tuple[float, float] | None
    unit: str
    met: bool | None
    reached: bool | None = None
    ceiling: float | None = None
    ceiling_name: str | None = None


@dataclass(frozen=True)
class RatioTarget:
    """`contestant` of the case is `least` times better than `against`.

    `against_key`: another case that `against` is taken from. `ceiling`: a contestant that does
    only a part of the same work, which nobody who does all of it can pass.
    """

    title: str
    key: str
    against: str
    least: float
    contestant: str = "lvolfs"
    against_key: str | None = None
    ceiling: str | None = None

    def judge(self, outcomes: Outcomes) -> Row:
        mine, other = outcomes.get(self.key), outcomes.get(self.against_key or self.key)
        ratio = spread = ceiling = None
        if mine and other and self.against_key is None:
            ratio = mine.ratio(self.contestant, self.against)
            spread = mine.ratio_spread(self.contestant, self.against)
        elif mine and other:
            ratio = mine.ratio_to(self.contestant, other, self.against)
        if mine and other and self.ceiling:
            ceiling = mine.ratio_to(self.ceiling, other, self.against)
        return Row(
            self.title,
            f"≥ {self.least:g}x",
            ratio,
            spread,
            "x",
            None if ratio is None else ratio >= self.least,
            None if spread is None else spread[1] >= self.least,
            ceiling,
            self.ceiling,
        )


@dataclass(frozen=True)
class LimitTarget:
    """The contestant's median is at least, or at most, so much."""

    title: str
    key: str
    limit: float
    unit: str
    contestant: str = "lvolfs"
    at_least: bool = False
    figure: str = "value"
    ceiling: str | None = None

    def judge(self, outcomes: Outcomes) -> Row:
        case = outcomes.get(self.key)
        median = case.median(self.contestant, self.figure) if case else None
        spread = case.spread(self.contestant, self.figure) if case else None
        met = reached = None
        if median is not None and spread is not None:
            met = median >= self.limit if self.at_least else median < self.limit
            reached = spread[1] >= self.limit if self.at_least else spread[0] < self.limit
        return Row(
            self.title,
            f"{'≥' if self.at_least else '<'} {self.limit:g} {self.unit}",
            median,
            spread,
            self.unit,
            met,
            reached,
            case.median(self.ceiling, self.figure) if case and self.ceiling else None,
            self.ceiling,
        )


READ32 = "fio.randread.4k.qd32.libaio.direct"
WRITE32 = "fio.randwrite.4k.qd32.libaio.direct"
READ1 = "fio.randread.4k.qd1.psync.direct"
WRITE1 = "fio.randwrite.4k.qd1.psync.direct"
WRITE4 = "fio.randwrite.4k.4jobs.psync.direct"

TARGETS: list[RatioTarget | LimitTarget] = [
    RatioTarget("4 KiB random read, QD32, vs qcow2", READ32, "qcow2", 4.0, ceiling="bare"),
    RatioTarget("4 KiB random overwrite, QD32, vs qcow2", WRITE32, "qcow2", 2.5, ceiling="bare"),
    RatioTarget("4 KiB random read, QD1, vs qcow2", READ1, "qcow2", 2.0, ceiling="bare"),
    RatioTarget("4 KiB random read, QD32, vs pyfuse3", READ32, "pyfuse3", 8.0, ceiling="bare"),
    RatioTarget(
        "4 KiB random overwrite, QD32, vs pyfuse3", WRITE32, "pyfuse3", 8.0, ceiling="bare"
    ),
    RatioTarget("4 KiB random read, QD1, vs pyfuse3", READ1, "pyfuse3", 8.0, ceiling="bare"),
    RatioTarget("4 KiB random read, QD32, vs flat lane", READ32, "flat-lane", 0.93),
    RatioTarget("4 KiB random overwrite, QD32, vs flat lane", WRITE32, "flat-lane", 0.93),
    RatioTarget("4 KiB random read, QD1, vs flat lane", READ1, "flat-lane", 0.93),
    RatioTarget(
        "1 MiB sequential read vs flat lane", "fio.read.1m.qd4.libaio.direct", "flat-lane", 0.95
    ),
    RatioTarget(
        "1 MiB sequential overwrite vs flat lane",
        "fio.write.1m.qd4.libaio.direct",
        "flat-lane",
        0.95,
    ),
    RatioTarget(
        "4 KiB random overwrite, 4 jobs vs 1",
        WRITE4,
        "lvolfs",
        2.5,
        against_key=WRITE1,
        ceiling="bare",
    ),
    RatioTarget(
        "first writes, thin, one in each cluster, vs qcow2", "first.thin.each", "qcow2", 2.0
    ),
    RatioTarget("first writes that fill a thin volume vs qcow2", "first.thin.fill", "qcow2", 2.0),
    RatioTarget("first writes, COW, one in each cluster, vs qcow2", "first.cow.each", "qcow2", 2.0),
    RatioTarget("random writes that fill a clone vs qcow2", "first.cow.fill", "qcow2", 2.0),
    RatioTarget(
        "read through 64 snapshots vs none",
        "chain.randread.4k.qd32",
        "no snapshot",
        0.97,
        contestant="64 snapshots",
    ),
    RatioTarget(
        "register checksums, 1 thread, vs xxhsum -H3",
        "sums.file",
        "xxhsum -H3",
        1.2,
        ceiling="plain read",
    ),
    RatioTarget(
        "register checksums, 2 threads vs 1", "sums.file", "lvolfs", 1.7, contestant="2 threads"
    ),
    RatioTarget(
        "shallow copy vs cp --sparse=always, both flushed",
        "copy.shallow.file",
        "cp --sparse=always",
        1.2,
    ),
    RatioTarget(
        "shallow copy vs cp --sparse=always, tmpfs", "copy.shallow.tmpfs", "cp --sparse=always", 1.2
    ),
    LimitTarget(
        "register checksums, 2 threads, tmpfs",
        "sums.tmpfs",
        8,
        "GiB/s",
        contestant="2 threads",
        at_least=True,
    ),
    LimitTarget(
        "shallow copy, tmpfs, new file",
        "copy.shallow.tmpfs",
        3.5,
        "GiB/s",
        at_least=True,
        ceiling="plain write",
    ),
    LimitTarget(
        "shallow copy, tmpfs with huge pages, new file",
        "copy.shallow.tmpfs-huge",
        3.5,
        "GiB/s",
        at_least=True,
    ),
    LimitTarget(
        "shallow copy, tmpfs, over an existing file", "copy.over.tmpfs", 3.5, "GiB/s", at_least=True
    ),
    RatioTarget("delta rebuild, 1 % changed, vs full copy (dd)", "rebuild.1", "full copy", 30),
    RatioTarget("delta rebuild, 1 % changed, vs full rebuild", "rebuild.1", "full rebuild", 30),
    RatioTarget("delta rebuild, 1 % changed, vs rsync --inplace", "rebuild.1", "rsync", 20),
    RatioTarget("delta rebuild, 5 % changed, vs btrfs send", "rebuild.5", "btrfs", 2.5),
    RatioTarget("delta rebuild, 5 % changed, vs zfs-fuse send", "rebuild.zfs.5", "zfs-fuse", 2.0),
    LimitTarget(
        "bytes read on both sides, 1 % changed, per differing byte",
        "rebuild.1",
        2.1,
        "x",
        figure="read_per_differing",
    ),
    RatioTarget(
        "snapshot of a full 1 TiB volume vs of 1 GiB",
        "snapshot.full",
        "1 GiB",
        1 / 3,
        contestant="1 TiB",
    ),
    LimitTarget("snapshot of a full 1 TiB volume", "snapshot.full", 20, "ms", contestant="1 TiB"),
    LimitTarget("open, cleanly closed, 1,000,000 clusters", "open", 1, "s", contestant="clean"),
    LimitTarget("open after a crash, 1,000,000 clusters", "open", 3, "s", contestant="crashed"),
    LimitTarget(
        "open after a crash, metadata mostly holes",
        "open",
        0.3,
        "s",
        contestant="crashed with holes",
    ),
    LimitTarget("memory per owned cluster", "memory", 16, "bytes"),
]


def judge(outcomes: Outcomes) -> list[Row]:
    return [target.judge(outcomes) for target in TARGETS]
