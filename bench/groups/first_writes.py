"""First writes: into an empty thin volume, and into a clone of a written one (COW).

"each" writes 4 KiB once into every cluster, in random order: every write allocates. "fill"
writes every 4 KiB block once, in random order, as fio does by itself. Every run has a new
file, which is not timed; the flush at the end is timed apart.
"""

import contextlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from bench import fio
from bench.case import Case, Sample
from bench.content import Content
from bench.page_cache import warm
from bench.peers.block_files import (
    flush,
    loop_file_system,
    mounted_store,
    qcow2_export,
    scratch_directory,
)
from bench.processes import execute, lvolfs
from bench.settings import GIB, MIB, Settings

THIN = ("lvolfs", "qcow2", "raw")
COW = ("lvolfs", "qcow2", "qcow2-subclusters", "xfs")


class NewFiles:
    """New files, empty or clones of `base`; the daemons behind them start on first use."""

    def __init__(self, directory: Path, base_size: int) -> None:
        self.directory = directory
        self.base_size = base_size
        self.stack = contextlib.ExitStack()
        self.numbers = itertools.count()
        self._mountpoint: Path | None = None
        self._xfs: Path | None = None

    def __enter__(self) -> "NewFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def base(self) -> Path:
        path = self.directory / "base"
        if not path.exists():
            Content().fill(path, self.base_size)
        return path

    @property
    def mountpoint(self) -> Path:
        """A store with the snapshot "base"."""
        if self._mountpoint is None:
            store, mountpoint = self.directory / "store", self.directory / "mnt"
            lvolfs("create", store, "--size", str(12 * GIB))
            self.stack.enter_context(mounted_store(store, mountpoint))
            origin = mountpoint / "volumes/origin"
            with origin.open("wb") as file:
                file.truncate(self.base_size)
            execute("dd", f"if={self.base}", f"of={origin}", "bs=1M", "conv=notrunc,fsync")
            lvolfs("snapshot", mountpoint, "origin", "base")
            self._mountpoint = mountpoint
        return self._mountpoint

    @property
    def xfs(self) -> Path:
        if self._xfs is None:
            image = self.directory / "xfs.img"
            mkfs = ("mkfs.xfs", "-q", "-m", "reflink=1")
            self._xfs = self.stack.enter_context(loop_file_system(image, 4 * GIB, *mkfs))
            execute("cp", self.base, self._xfs / "base")
            execute("sync", self._xfs / "base")
        return self._xfs

    @contextlib.contextmanager
    def new(self, contestant: str, size: int, *, clone: bool) -> Iterator[Path]:
        name = f"new{next(self.numbers)}"
        if contestant == "lvolfs":
            path = self.mountpoint / "volumes" / name
            if clone:
                warm(self.mountpoint / "snapshots/base")
                lvolfs("clone", self.mountpoint, "base", name)
            else:
                with path.open("wb") as file:
                    file.truncate(size)
            yield path
            path.unlink()
        elif contestant.startswith("qcow2"):
            image = self.directory / f"{name}.qcow2"
            options = "cluster_size=1M,lazy_refcounts=on"
            if contestant == "qcow2-subclusters":
                options += ",extended_l2=on"
            backing = ("-b", self.base, "-F", "raw") if clone else ()
            if clone:
                warm(self.base)
            execute("qemu-img", "create", "-f", "qcow2", "-o", options, *backing, image, str(size))
            with qcow2_export(image) as path:
                yield path
            image.unlink()
        else:
            path = (self.xfs if contestant == "xfs" else self.directory) / name
            if clone:
                warm(self.xfs / "base")
                execute("cp", "--reflink=always", self.xfs / "base", path)
            else:
                with path.open("wb") as file:
                    file.truncate(size)
            yield path
            path.unlink()


def write_log(path: Path, clusters: int) -> None:
    """A fio iolog of 4 KiB writes: one at a random place of every cluster, in random order."""
    chosen = random.Random(clusters)
    order = list(range(clusters))
    chosen.shuffle(order)
    writes = [f"data write {c * MIB + chosen.randrange(256) * 4096} 4096" for c in order]
    lines = ["fio version 2 iolog", "data add", "data open", *writes, "data close"]
    path.write_text("\n".join(lines) + "\n")


def make_case(
    files: NewFiles, key: str, title: str, size: int, *, clone: bool, each: bool, most: int
) -> Case:
    def write_new(contestant: str, log: Path | None) -> Sample:
        with files.new(contestant, size, clone=clone) as path:
            sample = fio.run(
                path,
                "randwrite",
                "4k",
                depth=32,
                direct=contestant != "raw",
                log=log,
                size=None if log else min(size, 256 * MIB),
            )
            writing = sample["ios"] / sample["iops"]
            flushing = flush(path)
        return sample | {
            "value": sample["iops"],
            "flush_seconds": flushing,
            "iops_with_flush": sample["ios"] / (writing + flushing),
        }

    def measure(contestant: str) -> Sample:
        """The faster one of two new files: the first one may wait for memory that the host has
        been given back, the second one finds what the first one freed."""
        log = files.directory / f"{size // MIB}.log" if each else None
        if log and not log.exists():
            write_log(log, size // MIB)
        return max((write_new(contestant, log) for _ in range(2)), key=lambda found: found["value"])

    contestants = COW if clone else THIN
    fewer = dict.fromkeys(contestants, most)
    return Case(key, title, "IOPS", contestants, measure, rounds=fewer)


@contextlib.contextmanager
def open_group(settings: Settings) -> Iterator[list[Case]]:
    base = (128 if settings.quick else 512) * MIB
    thin = (1 if settings.quick else 4) * GIB
    most = 1 if settings.quick else 3
    with (
        scratch_directory(settings.directory) as directory,
        NewFiles(directory, base) as files,
    ):
        yield [
            make_case(
                files,
                "first.thin.each",
                "4 KiB first writes, thin volume, one in each cluster, QD32",
                thin,
                clone=False,
                each=True,
                most=most,
            ),
            make_case(
                files,
                "first.thin.fill",
                "4 KiB random writes that fill a thin volume, QD32",
                128 * MIB if settings.quick else 256 * MIB,
                clone=False,
                each=False,
                most=most,
            ),
            make_case(
                files,
                "first.cow.each",
                "4 KiB first writes, clone (COW), one in each cluster, QD32",
                base,
                clone=True,
                each=True,
                most=most,
            ),
            make_case(
                files,
                "first.cow.fill",
                "4 KiB random writes that fill 256 MiB of a clone (COW), QD32",
                base,
                clone=True,
                each=False,
                most=most,
            ),
        ]
