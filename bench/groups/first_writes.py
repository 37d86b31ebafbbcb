"""First writes: into an empty thin volume, and into a clone of a written one (COW).

"each" writes 4 KiB once into every cluster, in random order: every write allocates. "fill"
writes every 4 KiB block once, in random order, as fio does by itself. Both are timed until the
last write has returned. "durable" does what "each" does, and is timed until fsync has returned.
Every run has a new file, which is not timed.
"""

import contextlib
import itertools
import mmap
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
BLOCK = 4096
DEPTH = 32


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


def one_in_each(clusters: int) -> list[int]:
    """Offsets of blocks: a random one of every cluster, in random order."""
    chosen = random.Random(clusters)
    order = list(range(clusters))
    chosen.shuffle(order)
    return [c * MIB + chosen.randrange(MIB // BLOCK) * BLOCK for c in order]


def write_log(path: Path, offsets: list[int]) -> None:
    """A fio iolog of 4 KiB writes."""
    writes = [f"data write {offset} {BLOCK}" for offset in offsets]
    lines = ["fio version 2 iolog", "data add", "data open", *writes, "data close"]
    path.write_text("\n".join(lines) + "\n")


def write_durably(path: Path, offsets: list[int]) -> float:
    """Seconds until blocks at these offsets are written, as many at a time as fio does, and fsync
    has returned. Not by fio, whose figures leave out what a file's close takes, and with it the
    flush of whoever flushes then."""
    descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as block, ThreadPoolExecutor(DEPTH) as threads:
            block.write(os.urandom(BLOCK))
            start = time.monotonic()
            for written in threads.map(lambda at: os.pwrite(descriptor, block, at), offsets):
                if written != BLOCK:
                    raise OSError(f"{path}: short write of {written} bytes")
            os.fsync(descriptor)
            return time.monotonic() - start
    finally:
        os.close(descriptor)


def fastest_of_new(
    files: NewFiles, contestant: str, size: int, write: Callable[[Path], Sample], *, clone: bool
) -> Sample:
    """The faster one of two new files: the first one may wait for memory that the host has
    been given back, the second one finds what the first one freed."""

    def write_new() -> Sample:
        with files.new(contestant, size, clone=clone) as path:
            return write(path)

    return max((write_new() for _ in range(2)), key=lambda found: found["value"])


def make_case(
    files: NewFiles, key: str, title: str, size: int, *, clone: bool, each: bool, most: int
) -> Case:
    def measure(contestant: str) -> Sample:
        log = files.directory / f"{size // MIB}.log" if each else None
        if log and not log.exists():
            write_log(log, one_in_each(size // MIB))

        def write(path: Path) -> Sample:
            sample = fio.run(
                path,
                "randwrite",
                "4k",
                depth=DEPTH,
                direct=contestant != "raw",
                log=log,
                size=None if log else min(size, 256 * MIB),
            )
            # Not timed: what one wrote does not go to the disk during the next sample.
            flush(path)
            return sample | {"value": sample["iops"]}

        return fastest_of_new(files, contestant, size, write, clone=clone)

    contestants = COW if clone else THIN
    fewer = dict.fromkeys(contestants, most)
    return Case(key, title, "IOPS", contestants, measure, rounds=fewer)


def durable_case(files: NewFiles, size: int, most: int) -> Case:
    offsets = one_in_each(size // MIB)

    def measure(contestant: str) -> Sample:
        def write(path: Path) -> Sample:
            seconds = write_durably(path, offsets)
            return {"value": len(offsets) / seconds, "seconds": seconds}

        return fastest_of_new(files, contestant, size, write, clone=True)

    title = "4 KiB first writes, clone (COW), one in each cluster, 32 at a time, and fsync"
    fewer = dict.fromkeys(COW, most)
    return Case("first.cow.durable", title, "IOPS", COW, measure, rounds=fewer)


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
            durable_case(files, base, most),
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
