"""What whole stores cost: snapshots, clones, opening, mounting, memory, by their size.

Large stores are made of metadata alone: volumes own clusters that nobody ever wrote, which
the backing file has as holes.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bench.case import Case, Sample
from bench.peers.block_files import mounted_store, scratch_directory
from bench.processes import ProgramError, execute
from bench.settings import GIB, MIB, Settings
from lvolfs import Lvol, Lvstore
from lvolfs.blobstore.superblock import PAGE, Superblock, parse_superblock

TIB = 1 << 40
SIZES = {"1 GiB": GIB, "16 GiB": 16 * GIB, "256 GiB": 256 * GIB, "1 TiB": TIB, "16 TiB": 16 * TIB}
FULL = {name: size for name, size in SIZES.items() if size <= TIB}
MEMORY = """
import gc, sys
from lvolfs import Lvstore
def private():
    gc.collect()
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(l.split()[1]) << 10 for l in lines if l.startswith(("Private", "Swap:")))
with Lvstore.open(sys.argv[1]):
    before = private()
with Lvstore.open(sys.argv[2]) as store:
    owned = sum(lvol.num_allocated_clusters for lvol in store.lvols)
    print(private() - before, owned)
"""


class Stores:
    """Stores in `directory`, made on first use."""

    def __init__(self, directory: Path, owned: int) -> None:
        self.directory = directory
        self.owned = owned
        self.stack = contextlib.ExitStack()
        self.open: dict[str, Lvol] = {}

    def __enter__(self) -> "Stores":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.open.clear()
        self.stack.close()

    def volume(self, name: str) -> Lvol:
        """The one volume of an open store, thick, of the size of that name."""
        if name not in self.open:
            size = SIZES[name]
            store = self.stack.enter_context(
                Lvstore.create(
                    str(self.directory / f"full{size // GIB}"), size=size + size // 16 + GIB
                )
            )
            self.open[name] = store.create_volume("volume", size, thick=True)
        return self.open[name]

    @property
    def large(self) -> Path:
        """A cleanly closed store whose ten volumes own `owned` clusters together."""
        path = self.directory / "large"
        if not path.exists():
            size = (self.owned * 102 // 100 + 4000) * MIB
            with Lvstore.create(str(path), size=size) as store:
                for number in range(10):
                    store.create_volume(f"v{number}", self.owned // 10 * MIB, thick=True)
        return path

    @property
    def empty(self) -> Path:
        path = self.directory / "empty"
        if not path.exists():
            Lvstore.create(str(path), size=GIB).close()
        return path

    def crashed(self, *, holes: bool) -> Path:
        """A copy of `large` as a crash leaves it. Without holes, its metadata are all on disk."""
        path = self.directory / f"crashed-{'holes' if holes else 'full'}"
        if not path.exists():
            execute("cp", "--sparse=always", self.large, path)
            if not holes:
                fill_metadata_holes(path)
        with path.open("r+b") as file:
            file.write(replace(read_superblock(path), clean=False).pack())
        return path


def read_superblock(path: Path) -> Superblock:
    with path.open("rb") as file:
        return parse_superblock(file.read(PAGE), path.stat().st_size, device=str(path))


def fill_metadata_holes(path: Path) -> None:
    """Writes zeros where the metadata region was never written, as on an old block device."""
    superblock = read_superblock(path)
    with path.open("r+b") as file:
        position = superblock.md_start * superblock.page_size
        end = position + superblock.md_len * superblock.page_size
        while position < end:
            hole = os.lseek(file.fileno(), position, os.SEEK_HOLE)
            if hole >= end:
                break
            try:
                position = min(end, os.lseek(file.fileno(), hole, os.SEEK_DATA))
            except OSError:
                position = end
            for offset in range(hole, position, MIB):
                os.pwrite(file.fileno(), bytes(min(MIB, position - offset)), offset)
        os.fsync(file.fileno())


def milliseconds(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return (time.monotonic() - start) * 1e3


def snapshot_latency(volume: Lvol) -> Sample:
    """Median of five; each snapshot is deleted again, so the volume owns its clusters again."""
    found = []
    for _ in range(5):
        found.append(milliseconds(lambda: volume.snapshot("s")))
        volume.store.get("s").delete()
    return {"value": sorted(found)[2]}


def clone_latency(volume: Lvol) -> Sample:
    volume.snapshot("s")
    found = []
    for _ in range(5):
        found.append(milliseconds(lambda: volume.store.get("s").clone("c")))
        volume.store.get("c").delete()
    volume.store.get("s").delete()
    return {"value": sorted(found)[2]}


def open_seconds(path: Path) -> Sample:
    start = time.monotonic()
    store = Lvstore.open(str(path))
    seconds = time.monotonic() - start
    store.close()
    return {"value": seconds}


def mount_seconds(path: Path, mountpoint: Path) -> Sample:
    start = time.monotonic()
    with mounted_store(path, mountpoint):
        return {"value": time.monotonic() - start}


def memory_of(empty: Path, store: Path) -> tuple[int, int]:
    """Private bytes that opening a store takes beyond opening an empty one; its owned clusters."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, empty, store],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ProgramError(f"measuring memory: {done.stderr.strip()}")
    used, owned = map(int, done.stdout.split())
    return used, owned


@contextlib.contextmanager
def open_group(settings: Settings) -> Iterator[list[Case]]:
    owned = 100_000 if settings.quick else 1_000_000
    with scratch_directory(settings.directory) as directory, Stores(directory, owned) as stores:

        def by_size(key: str, title: str, measure: Callable[[Lvol], Sample]) -> Case:
            return Case(
                key,
                title,
                "ms",
                tuple(FULL),
                lambda name: measure(stores.volume(name)),
                "less",
                dict.fromkeys(FULL, 3),
            )

        def opening(name: str) -> Sample:
            path = stores.large if name == "clean" else stores.crashed(holes=name.endswith("holes"))
            warm_metadata(path)
            return open_seconds(path)

        def mounting(name: str) -> Sample:
            path = stores.empty if name == "empty" else stores.large
            return mount_seconds(path, directory / "mnt")

        def memory(scale: float) -> Sample:
            used, owned = memory_of(stores.empty, stores.large)
            return {"value": used / owned * scale, "bytes": float(used)}

        yield [
            by_size("snapshot.full", "snapshot of a full volume", snapshot_latency),
            by_size("clone.full", "clone of a full snapshot", clone_latency),
            Case(
                "open",
                f"open of a store with {owned:,} owned clusters",
                "s",
                ("clean", "crashed", "crashed with holes"),
                opening,
                "less",
            ),
            Case(
                "mount",
                f"mount command until it answers, empty and {owned:,} owned clusters",
                "s",
                ("empty", "large"),
                mounting,
                "less",
            ),
            Case(
                "memory",
                "memory that opening takes, for each owned cluster",
                "bytes",
                ("lvolfs",),
                lambda _: memory(1),
                "less",
                {"lvolfs": 3},
            ),
            Case(
                "memory.full",
                "memory that opening takes, full volumes",
                "MiB/TiB",
                ("lvolfs",),
                lambda _: memory(TIB // MIB / 2**20),
                "less",
                {"lvolfs": 2},
            ),
        ]


def warm_metadata(path: Path) -> None:
    superblock = read_superblock(path)
    length = (superblock.md_start + superblock.md_len) * superblock.page_size
    execute(
        "dd", f"if={path}", "of=/dev/null", "bs=1M", f"count={length // MIB + 1}", "status=none"
    )
