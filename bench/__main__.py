"""`python -m bench`: measures lvolfs beside its peers, prints ratios, keeps every sample."""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import groups, machine, report, results, rounds
from bench.case import Case, Outcome
from bench.processes import ProgramError
from bench.settings import Settings
from lvolfs import __version__


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: under 3 minutes")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a group, the beginning of a case's key, or a pattern with * (repeatable)",
    )
    parser.add_argument(
        "--peers",
        default="",
        metavar="NAMES",
        help="only these contestants, separated by commas (lvolfs is one, too)",
    )
    parser.add_argument("--rounds", type=int, help="how often (default: 3; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each fio run (default: 1.5; quick: 0.7)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(os.environ.get("TMPDIR", "/var/tmp")),
        help="where the files are (default: $TMPDIR or /var/tmp)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument(
        "--merge", type=Path, metavar="FILE", help="like --json, and keep the file's other cases"
    )
    parser.add_argument("--force", action="store_true", help="measure beside other load, too")
    parser.add_argument("--list", action="store_true", help="show the cases and end")
    return parser


def selected(case: Case, only: list[str], group: str) -> bool:
    return not only or any(
        name == group or case.key.startswith(name) or fnmatch(case.key, name) for name in only
    )


def measure(
    options: argparse.Namespace, settings: Settings, say: Callable[[str], None]
) -> list[Outcome]:
    outcomes = []
    peers = set(filter(None, options.peers.split(",")))
    found: set[str] = set()
    for name, open_group in groups.GROUPS.items():
        with open_group(settings) as cases:
            chosen = [case for case in cases if selected(case, options.only, name)]
            limited = [c for case in chosen if (c := case.limited_to(peers))]
            found |= {contestant for case in limited for contestant in case.contestants}
            if options.list:
                for case in limited:
                    print(f"{case.key}  {','.join(case.contestants)}")
            elif limited:
                start = time.monotonic()
                outcomes += rounds.run(limited, settings.rounds, say)
                say(f"{name}: {time.monotonic() - start:.0f} s")
    if peers - found or not found:
        raise ProgramError(
            f"nothing to measure for {', '.join(sorted(peers - found)) or ', '.join(options.only)}:"
            " --list shows all cases and contestants"
        )
    return outcomes


def leave_on_signal(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP end the run like Ctrl-C: everything is unmounted and removed."""
    raise KeyboardInterrupt


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if (options.rounds or 1) < 1 or (options.seconds or 1) <= 0:
        parser.error("--rounds and --seconds must be positive")
    settings = Settings(
        directory=options.directory,
        rounds=options.rounds or (2 if options.quick else 3),
        seconds=options.seconds or (0.7 if options.quick else 1.5),
        quick=options.quick,
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave_on_signal)
    progress = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        progress.print(text, markup=False)

    if options.list:
        measure(options, settings, say)
        return 0
    busy = None
    try:
        busy = machine.refuse_beside_load()
    except machine.LoadError:
        if not options.force:
            raise
    before, start, begun = machine.read_processor_times(), time.monotonic(), results.now()
    about = machine.describe(settings.directory)
    outcomes = measure(options, settings, say)
    after = machine.read_processor_times()
    run = {
        "date": begun,
        "seconds": round(time.monotonic() - start, 1),
        "arguments": sys.argv[1:],
        "busy_before": busy,
        "stolen": (after[1] - before[1]) / max(after[2] - before[2], 1),
        "rounds": settings.rounds,
        "fio_seconds": settings.seconds,
        "quick": settings.quick,
        "version": __version__,
        "commit": machine.commit(),
    }
    document = results.document(outcomes, machine=about, slices=[run])
    if options.merge and options.merge.exists():
        document = results.merge(results.load(options.merge), document)
    for path in filter(None, (options.json, options.merge)):
        results.save(path, document)
    show = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    measured = {outcome.key: outcome for outcome in outcomes}
    show.print(report.case_table(measured))
    show.print(report.target_table(measured))
    print(
        f"lvolfs {__version__}, {about['processor']}, {about['cpus']} CPUs, "
        f"Linux {about['kernel']}, {about['cache_mode']}; "
        f"{settings.rounds} rounds in {run['seconds']:.0f} s"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProgramError, machine.LoadError, results.ResultError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        sys.exit(130)
