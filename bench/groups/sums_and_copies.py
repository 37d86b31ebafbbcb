"""Registering checksums and shallow copies, in the page cache of a disk's file system, on tmpfs
with and without huge pages.

Both are called in this process on an open store, as a daemon does. They are timed until the
job is complete: a registration's table and a copy's destination are durable then. xxhsum reads
the store itself, which is little more than the snapshot: two files of the same bytes may be read
at rates that differ by a quarter, by where in memory they lie. cp gets the same bytes in a plain
file, and its copy is flushed, too.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.case import Case, Sample
from bench.content import Content
from bench.page_cache import kept_warm
from bench.peers.block_files import STORE_PIECE, huge_tmpfs, scratch_directory
from bench.processes import ProgramError, timed
from bench.settings import GIB, MIB, Settings
from lvolfs import Job, Lvol, Lvstore
from lvolfs.delta.checksums import register

TMPFS = Path("/dev/shm")
SPARE = 32 * MIB
"""In a store beside the snapshot that it holds."""
PASSES = 2
"""Over the data, for one sample of a checksum case."""


class Frozen:
    """A store that the fully written snapshot "frozen" nearly fills; with `plain`, the same bytes
    and an eighth of them in plain files, too; with `huge_pages` on a tmpfs of its own that has
    them."""

    def __init__(
        self, parent: Path, size: int, *, plain: bool = False, huge_pages: bool = False
    ) -> None:
        self.parent = parent
        self.size = size
        self.plain = plain
        self.huge_pages = huge_pages
        self.stack = contextlib.ExitStack()
        self.made: tuple[Lvol, Path] | None = None

    def __enter__(self) -> "Frozen":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _make(self) -> tuple[Lvol, Path]:
        if self.made is None:
            directory = self.stack.enter_context(scratch_directory(self.parent))
            if self.huge_pages:
                self.stack.enter_context(huge_tmpfs(directory))
            content = Content()
            sources = [directory / "store"]
            if self.plain:
                sources += [directory / "plain", directory / "eighth"]
                content.fill(directory / "plain", self.size, STORE_PIECE)
                content.fill(directory / "eighth", self.size // 8, STORE_PIECE)
            store = self.stack.enter_context(
                Lvstore.create(str(directory / "store"), size=self.size + SPARE)
            )
            volume = store.create_volume("volume", self.size)
            for number in range(self.size // MIB):
                volume.pwrite(content.block(number), number * MIB)
            volume.flush()
            self.stack.enter_context(kept_warm(*sources))
            self.made = volume.snapshot("frozen"), directory
        return self.made

    @property
    def snapshot(self) -> Lvol:
        return self._make()[0]

    @property
    def directory(self) -> Path:
        return self._make()[1]


def job_seconds(start: float, job: Job) -> float:
    job.wait()
    seconds = time.monotonic() - start
    job.raise_if_failed()
    return seconds


def registration(frozen: Frozen, threads: int) -> float:
    snapshot = frozen.snapshot
    start = time.monotonic()
    return job_seconds(start, register(snapshot, parallel=threads))


def store_rate(frozen: Frozen, read: Callable[[Path], float]) -> tuple[float, float]:
    """Bytes of the store's file, and the seconds that reading it takes."""
    path = frozen.directory / "store"
    return path.stat().st_size, read(path)


def plain_read(path: Path) -> float:
    """One thread, pread of 1 MiB at a time into one buffer: what a hash cannot be faster than."""
    buffer = bytearray(MIB)
    start = time.monotonic()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.monotonic() - start


def copy(frozen: Frozen, clusters: range | None, *, over: bool = False) -> float:
    """`over`: into a file that has all its blocks already, as a device has; else into a new one."""
    target = frozen.directory / ("copy-over" if over else "copy")
    snapshot = frozen.snapshot
    with target.open("ab" if over else "wb") as file:
        file.truncate(frozen.size)
    start = time.monotonic()
    job = snapshot.shallow_copy(target, None if clusters is None else [clusters])
    seconds = job_seconds(start, job)
    if job.copied != (frozen.size // MIB if clusters is None else len(clusters)):
        raise ProgramError(f"the copy of {clusters} copied {job.copied} clusters")
    return seconds


def cp(frozen: Frozen, name: str) -> float:
    source, target = frozen.directory / name, frozen.directory / "cp"
    # What the last pass wrote is not freed at the expense of this one.
    target.unlink(missing_ok=True)
    return timed("sh", "-c", f"cp --sparse=always '{source}' '{target}' && sync '{target}'")


def dd(frozen: Frozen) -> float:
    source, target = frozen.directory / "plain", frozen.directory / "dd"
    return timed("dd", f"if={source}", f"of={target}", "bs=1M", "conv=notrunc,fsync", "status=none")


def plain_write(frozen: Frozen) -> float:
    """One thread, the same 1 MiB again and again into a new file, flushed: no copy into it can be
    faster that has to fetch its data first."""
    block = Content().block(0)
    with (frozen.directory / "plain-write").open("wb", buffering=0) as file:
        start = time.monotonic()
        for _ in range(frozen.size // MIB):
            file.write(block)
        os.fsync(file.fileno())
        return time.monotonic() - start


def fastest(act: Callable[[], float], passes: int) -> float:
    """The shortest time of some passes, each of which writes a new file.

    A virtual machine that has given free memory to its host waits for it when it takes it again,
    for up to ten times as long as the copy itself. A pass finds what the one before it freed.
    """
    return min(act() for _ in range(passes))


def sum_case(frozen: Frozen, place: str) -> Case:
    acts: dict[str, Callable[[], tuple[float, float]]] = {
        "lvolfs": lambda: (frozen.size, registration(frozen, 1)),
        "2 threads": lambda: (frozen.size, registration(frozen, 2)),
        "xxhsum -H3": lambda: store_rate(frozen, lambda path: timed("xxhsum", "-H3", path)),
        "plain read": lambda: store_rate(frozen, plain_read),
    }

    def measure(name: str) -> Sample:
        passes = [acts[name]() for _ in range(PASSES)]
        seconds = sum(taken for _, taken in passes)
        return {"value": sum(size for size, _ in passes) / seconds / GIB, "seconds": seconds}

    return Case(f"sums.{place}", f"register checksums, {place}", "GiB/s", tuple(acts), measure)


def copy_cases(frozen: Frozen, place: str) -> list[Case]:
    size = frozen.size
    every_eighth = range(0, size // MIB, 8)
    in_memory = place != "file"

    def case(key: str, title: str, length: int, acts: dict[str, Callable[[], float]]) -> Case:
        """`acts`: what each contestant does to copy `length` bytes, and the seconds it took."""

        def measure(name: str) -> Sample:
            seconds = fastest(acts[name], 5 if in_memory else 2)
            return {"value": length / seconds / GIB, "seconds": seconds}

        # Copies on a disk's file system take seconds, most of them to flush.
        most = {} if in_memory else dict.fromkeys(acts, 3)
        name = place.replace(" with huge pages", "-huge")
        return Case(
            f"copy.{key}.{name}", f"{title}, {place}", "GiB/s", tuple(acts), measure, rounds=most
        )

    return [
        case(
            "shallow",
            "shallow copy",
            size,
            {
                "lvolfs": lambda: copy(frozen, None),
                "cp --sparse=always": lambda: cp(frozen, "plain"),
                "plain write": lambda: plain_write(frozen),
            },
        ),
        case(
            "over",
            "shallow copy over an existing file",
            size,
            {
                "lvolfs": lambda: copy(frozen, None, over=True),
                "dd conv=notrunc": lambda: dd(frozen),
            },
        ),
        case(
            "range",
            "copy of every 8th cluster",
            size // 8,
            {
                "lvolfs": lambda: copy(frozen, every_eighth),
                "cp --sparse=always": lambda: cp(frozen, "eighth"),
            },
        ),
    ]


@contextlib.contextmanager
def open_group(settings: Settings) -> Iterator[list[Case]]:
    """Checksums are of four times as many bytes: a pass over less is over in a tenth of a second.

    Copies on tmpfs are of fewer: a virtual machine gives free memory back to its host after some
    seconds, or sooner if it is much.
    """
    size = 256 * MIB if settings.quick else GIB
    with contextlib.ExitStack() as stack:
        cases = []
        for place, parent, copied in (
            ("file", settings.directory, size),
            ("tmpfs", TMPFS, size // 4),
        ):
            cases.append(sum_case(stack.enter_context(Frozen(parent, 4 * size)), place))
            cases += copy_cases(stack.enter_context(Frozen(parent, copied, plain=True)), place)
        huge = stack.enter_context(
            Frozen(settings.directory, size // 4, plain=True, huge_pages=True)
        )
        cases += copy_cases(huge, "tmpfs with huge pages")
        yield cases
