"""`python -m bench`: measures lvolfs beside its peers, prints ratios, keeps every sample."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from bench import groups, machine, plots, publish, report, results, rounds
from bench.case import Case, Outcome
from bench.processes import ProgramError
from bench.settings import MIB, Settings
from lvolfs import __version__


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: under 3 minutes")
    parser.add_argument(
        "--minutes", type=float, help="take no sample after these (default: 29; quick: 2.75)"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a group, a case's key or its beginning up to a dot, or a pattern with * (repeatable)",
    )
    parser.add_argument(
        "--peers",
        default="",
        metavar="NAMES",
        help="only these contestants, separated by commas (lvolfs is one, too)",
    )
    parser.add_argument("--rounds", type=int, help="how often, at most (default: 5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each fio run (default: 1.5; quick: 0.3)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(os.environ.get("TMPDIR", "/var/tmp")),
        help="where the files are (default: $TMPDIR or /var/tmp)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every sample there, as soon as it is taken"
    )
    parser.add_argument(
        "--merge", type=Path, metavar="FILE", help="like --json, and keep the file's other cases"
    )
    parser.add_argument(
        "--rebuild-size",
        type=int,
        metavar="MIB",
        help="of the volume that replicas are made of (default: 8192; quick: 256)",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots there (PNG, SVG)")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="measure nothing: print a result's tables and write them into the documentation",
    )
    parser.add_argument("--force", action="store_true", help="measure beside other load, too")
    parser.add_argument("--list", action="store_true", help="show the cases and end")
    return parser


def selected(case: Case, only: list[str], group: str) -> bool:
    return not only or any(
        name == group or f"{case.key}.".startswith(f"{name}.") or fnmatch(case.key, name)
        for name in only
    )


def measure(
    options: argparse.Namespace,
    settings: Settings,
    say: Callable[[str], None],
    outcomes: dict[str, Outcome],
    *,
    clock: rounds.Clock,
    save: Callable[[], None] = lambda: None,
) -> list[str]:
    """Fills `outcomes`; `save` is called after each sample. What went wrong beside the samples.

    A group that cannot be set up or taken down costs its own cases only.
    """
    peers = set(filter(None, options.peers.split(",")))
    found: set[str] = set()
    troubles = []
    for name, open_group in groups.groups(settings).items():
        start = time.monotonic()
        limited: list[Case] = []
        try:
            with open_group(settings) as cases:
                chosen = [case for case in cases if selected(case, options.only, name)]
                limited = [c for case in chosen if (c := case.limited_to(peers))]
                found |= {contestant for case in limited for contestant in case.contestants}
                if options.list:
                    outcomes |= {c.key: c.outcome() for c in limited if c.key not in outcomes}
                elif limited:
                    rounds.run(limited, settings.rounds, say, outcomes, clock=clock, taken=save)
        except (OSError, ProgramError) as error:
            troubles.append(f"{name}: {rounds.reason_of(error)}")
            say(f"FAILED: {troubles[-1]}")
        if limited and not options.list:
            say(f"{name}: {time.monotonic() - start:.0f} s")
    if peers - found or not found:
        raise ProgramError(
            f"nothing to measure for {', '.join(sorted(peers - found)) or ', '.join(options.only)}:"
            " --list shows all cases and contestants"
        )
    return troubles


def leave_on_signal(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP end the run like Ctrl-C: everything is unmounted and removed."""
    raise KeyboardInterrupt


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    numbers = (options.rounds, options.seconds, options.minutes, options.rebuild_size)
    if any(number is not None and number <= 0 for number in numbers):
        parser.error("--rounds, --seconds, --minutes and --rebuild-size must be positive")
    settings = Settings.of(
        options.directory,
        quick=options.quick,
        rounds=options.rounds,
        seconds=options.seconds,
        minutes=options.minutes,
        rebuild_size=options.rebuild_size and options.rebuild_size * MIB,
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave_on_signal)
    progress = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        progress.print(text, markup=False)

    show = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if options.report:
        measured = results.outcomes(results.load(options.report))
        show.print(report.target_table(measured))
        for path in publish.publish(options.report, Path(__file__).parents[1]):
            print(f"wrote {path}")
        return 0
    outcomes: dict[str, Outcome] = {}
    if options.list:
        measure(options, settings, say, outcomes, clock=rounds.Clock(0))
        print("\n".join(f"{case.key}  {','.join(case.samples)}" for case in outcomes.values()))
        return 0
    run = machine.Run(settings, force=options.force)
    # Users' Python keeps compiled modules; starting without them takes twice as long.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    before = results.load(options.merge) if options.merge and options.merge.exists() else None
    document: dict[str, Any] = {}

    def save() -> None:
        document.clear()
        document.update(
            results.document(
                [o for o in outcomes.values() if any(o.samples.values()) or o.failures],
                machine=run.machine,
                slices=[run.document(sys.argv[1:], __version__)],
            )
        )
        if before:
            document.update(results.merge(before, document))
        for path in filter(None, (options.json, options.merge)):
            results.save(path, document)

    clock = rounds.Clock(60 * settings.minutes)
    interrupted = False
    troubles: list[str] = []
    try:
        troubles = measure(options, settings, say, outcomes, clock=clock, save=save)
    except KeyboardInterrupt:
        # What was measured so far is kept; everything is unmounted and removed by now.
        interrupted = run.interrupted = True
    run.skipped = clock.skipped
    save()
    measured = results.outcomes({"cases": [o.document() for o in outcomes.values()]})
    show.print(report.case_table(measured))
    show.print(report.target_table(measured))
    if options.plots:
        for name in plots.draw(results.outcomes(document), options.plots):
            print(f"plot: {options.plots / name}.png and .svg")
    print(
        f"lvolfs {__version__}, {run.machine['processor']}, {run.machine['cpus']} CPUs, "
        f"Linux {run.machine['kernel']}, {run.machine['cache_mode']}; "
        f"{settings.rounds} rounds, {run.seconds:.0f} s"
    )
    troubles += report.failures(measured)
    for trouble in troubles:
        print(f"bench: FAILED: {trouble}", file=sys.stderr)
    if settings.quick:
        print("bench: --quick: sizes are smaller than those that the targets are set for")
    if clock.skipped:
        print(
            f"bench: {settings.minutes:g} minutes were up: {clock.skipped} samples were not taken "
            "(--minutes gives more time)"
        )
    if interrupted:
        print("bench: interrupted; everything is cleaned up, the figures so far are above")
        return 130
    return 1 if troubles else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (
        OSError,
        ProgramError,
        machine.LoadError,
        results.ResultError,
        plots.PlotError,
        publish.MarkerError,
    ) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
