"""fio on a file of every contestant: by block size, depth, engine; direct and buffered."""

import contextlib
from collections.abc import Iterator

from bench import fio
from bench.case import Case, Sample
from bench.peers.block_files import ALLOW_URING, BlockFiles, flush, scratch_directory
from bench.rounds import rotated
from bench.settings import Settings

URING = ("lvolfs-uring",) if ALLOW_URING.exists() else ()
"""Where the kernel has FUSE over io_uring."""
JUDGED = ("lvolfs", "flat-lane", "bare", "qcow2", "pyfuse3")
WITHOUT_TARGET = ("raw", "nbdfuse", "xfs")
ALL = (*JUDGED, *WITHOUT_TARGET)
MAIN = ("lvolfs", "flat-lane", "raw", "qcow2")
PAGE_CACHED = {"raw"}
"""Measured without O_DIRECT, which would take it out of the page cache that all others are in."""

MODES = {
    "randread": "random read",
    "randwrite": "random overwrite",
    "randrw": "random 70/30 mix",
    "read": "sequential read",
    "write": "sequential overwrite",
}


def make_case(
    files: BlockFiles,
    settings: Settings,
    mode: str,
    block: str,
    contestants: tuple[str, ...],
    *,
    engine: str = "libaio",
    depth: int = 1,
    jobs: int = 1,
    direct: bool = True,
    prefix: str = "fio",
    shorter: float = 1.0,
    rounds: dict[str, int] | None = None,
) -> Case:
    """`shorter`: by what the usual time of a fio run is multiplied."""
    by_rate = block in ("128k", "1m")

    def measure(name: str) -> Sample:
        path = files[name]
        sample = fio.run(
            path,
            mode,
            block,
            engine=engine,
            depth=depth,
            jobs=jobs,
            direct=direct and name not in PAGE_CACHED,
            seconds=settings.seconds * shorter,
        )
        if "read" not in mode:
            # What one wrote does not go to the disk during the next sample.
            flush(path)
        sample["value"] = sample["bytes"] / 1e9 if by_rate else sample["iops"]
        return sample

    cache = "direct" if direct else "buffered"
    load = f"qd{depth}" if jobs == 1 else f"{jobs}jobs"
    size = {"4k": "4 KiB", "128k": "128 KiB", "1m": "1 MiB"}.get(block, block)
    return Case(
        key=f"{prefix}.{mode}.{block}.{load}.{engine}.{cache}",
        title=f"{size} {MODES[mode]}, {load.replace('jobs', ' jobs').upper()}, {engine}, {cache}",
        unit="GB/s" if by_rate else "IOPS",
        contestants=contestants,
        measure=measure,
        rounds=rounds or {},
    )


def data_path_cases(files: BlockFiles, settings: Settings, number: int) -> list[Case]:
    """The cases that targets are set for, on the files that were made for the `number`-th time.

    Where in memory a file's page cache lies is decided when the file is made, and makes one up to a
    fifth slower than its equal for as long as it is there. So files are made anew for every two
    rounds. Samples are short: a slow second of the machine hits few of them, and no median. Who
    has no target is there in the first times only, for one round each.
    """
    others = (*WITHOUT_TARGET, *URING) if number < (1 if settings.quick else 3) else ()
    every = tuple(rotated((*JUDGED, *others), 2 * number))
    some = tuple(name for name in every if name in (*JUDGED, "raw")) if settings.quick else every
    often = dict.fromkeys(JUDGED, 1 if settings.quick else 2) | dict.fromkeys(others, 1)

    def case(mode: str, block: str, who: tuple[str, ...], **load: object) -> Case:
        return make_case(
            files,
            settings,
            mode,
            block,
            who,
            rounds=often,
            shorter=1 if settings.quick else 0.4,
            **load,  # type: ignore[arg-type]
        )

    return [
        case("randread", "4k", every, engine="libaio", depth=32),
        case("randwrite", "4k", every, engine="libaio", depth=32),
        case("randread", "4k", some, engine="psync"),
        case("randwrite", "4k", some, engine="psync"),
        case("randwrite", "4k", some, engine="psync", jobs=4),
        case("read", "1m", some, depth=4),
        case("write", "1m", some, depth=4),
    ]


def more_cases(files: BlockFiles, settings: Settings) -> list[Case]:
    """Other mixes, engines and caches, in two short rounds."""

    def case(mode: str, block: str, who: tuple[str, ...] = ALL, **load: object) -> Case:
        fewer = dict.fromkeys(who, 2)
        return make_case(files, settings, mode, block, who, rounds=fewer, shorter=0.4, **load)  # type: ignore[arg-type]

    cases = [
        case("randrw", "4k", engine="libaio", depth=32),
        case("randrw", "4k", engine="psync"),
        case("randrw", "4k", engine="psync", jobs=4),
        case("randread", "4k", engine="psync", jobs=4),
        case("read", "128k", depth=8),
        case("write", "128k", depth=8),
    ]
    for mode in ("randread", "randwrite"):
        cases += [
            case(mode, "4k", MAIN, engine="io_uring", depth=32),
            case(mode, "4k", MAIN, engine="libaio"),
            case(mode, "4k", engine="psync", direct=False),
        ]
    for mode in ("read", "write"):
        cases += [case(mode, "1m", engine="psync", direct=False)]
    for depth, engine in ((1, "psync"), (32, "libaio")):
        cases += [case("randread", "4k", ("disk",), engine=engine, depth=depth, prefix="disk")]
    return cases


SWEEP_BLOCKS = ("4k", "64k", "1m")
SWEEP_DEPTHS = (1, 4, 16, 64)
SWEPT = ("lvolfs", "flat-lane", "qcow2")


def sweep_cases(files: BlockFiles, settings: Settings) -> list[Case]:
    """For the plots: IOPS and latency over block size and depth, in one short round."""
    return [
        make_case(
            files,
            settings,
            mode,
            block,
            SWEPT,
            depth=depth,
            prefix="sweep",
            shorter=0.3,
            rounds=dict.fromkeys(SWEPT, 1),
        )
        for mode in ("randread", "randwrite")
        for block in SWEEP_BLOCKS
        for depth in SWEEP_DEPTHS
    ]


@contextlib.contextmanager
def open_fio(settings: Settings, number: int) -> Iterator[list[Case]]:
    with (
        scratch_directory(settings.directory) as directory,
        BlockFiles(directory, settings.volume_size) as files,
    ):
        yield data_path_cases(files, settings, number)


@contextlib.contextmanager
def open_more(settings: Settings) -> Iterator[list[Case]]:
    with (
        scratch_directory(settings.directory) as directory,
        BlockFiles(directory, settings.volume_size) as files,
    ):
        yield [] if settings.quick else sweep_cases(files, settings) + more_cases(files, settings)
