"""`python -m bench --report FILE`: figures in the documentation come from a result, never by hand.

Replaces what is between the markers of docs/performance.md and README.md, and the plots.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import groups, omissions, plots, report, results
from bench.case import Outcome
from bench.settings import Settings
from bench.targets import judge

BEGIN, END = "<!-- figures: written by python -m bench --report -->", "<!-- end of figures -->"

README_ROWS = (
    ("4 KiB random read, QD32", "fio.randread.4k.qd32.libaio.direct"),
    ("4 KiB random overwrite, QD32", "fio.randwrite.4k.qd32.libaio.direct"),
    ("4 KiB random read, QD1", "fio.randread.4k.qd1.psync.direct"),
    ("4 KiB first writes, one in each cluster of a clone (COW), QD32", "first.cow.each"),
    ("the same with fsync", "first.cow.durable"),
    ("4 KiB random writes that fill a clone (COW)", "first.cow.fill"),
    ("replica, 1 % changed", "rebuild.1"),
    ("replica, 5 % changed", "rebuild.5"),
)


class MarkerError(RuntimeError):
    """A document has no place for figures."""


def markdown(header: list[str], rows: list[list[str]], right: set[int]) -> str:
    line = ["---:" if number in right else "---" for number in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, line, *rows])


def between_markers(text: str, figures: str, name: str) -> str:
    """The text with new figures between the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise MarkerError(f"{name} needs the lines {BEGIN!r} and {END!r} once each")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{figures}\n\n{END}{tail}"


def machine_lines(found: dict[str, Any]) -> str:
    about, slices = found["machine"], found["slices"]
    versions = ", ".join(f"{name} {text}" for name, text in about["versions"].items() if text)
    runs = sorted({run["commit"] or "unknown" for run in slices})
    rounds = " or ".join(sorted({str(run["rounds"]) for run in slices}))
    stolen = max(run["stolen"] for run in slices)
    return (
        f"{about['processor']}, {about['cpus']} processors, "
        f"{about['memory_bytes'] / 2**30:.0f} GiB, "
        f"Linux {about['kernel']}, {about['file_system']}; FUSE over io_uring: "
        f"{about['fuse_over_io_uring']}. {about['cache_mode'].capitalize()}. "
        f"Measured {slices[0]['date']} to {slices[-1]['date']} in {len(slices)} "
        f"{'piece' if len(slices) == 1 else 'pieces'}, {rounds} rounds, "
        f"{sum(run['seconds'] for run in slices):.0f} s in all, commit {', '.join(runs)}; "
        f"the host took away at most {stolen:.1%} of the processors.\n\nVersions: {versions}."
    )


def performance_page(found: dict[str, Any], drawn: list[str], whole: Mapping[str, Outcome]) -> str:
    """`whole`: what a whole run measures."""
    outcomes = results.outcomes(found)
    rows = [report.target_cells(row) for row in judge(outcomes)]
    pictures = "\n".join(f"![{name}](plots/{name}.png)" for name in drawn)
    cases = [
        cells
        for o in outcomes.values()
        if not o.key.startswith("sweep.")
        for cells in report.case_cells(o)
    ]
    return "\n\n".join(
        [
            machine_lines(found),
            markdown(report.TARGET_HEADER, rows, report.TARGET_RIGHT),
            omissions.below_targets(judge(outcomes)),
            omissions.left_out(outcomes, whole, found["slices"]),
            pictures,
            "### Every case",
            markdown(report.CASE_HEADER, cases, report.CASE_RIGHT),
        ]
    )


def readme_table(outcomes: Mapping[str, Outcome]) -> str:
    rows = []
    for title, key in README_ROWS:
        case = outcomes.get(key)
        median = case.median("lvolfs") if case else None
        if case is None or median is None:
            continue
        others = [
            f"{name} {report.figure(other)}"
            for name in case.samples
            if name not in ("lvolfs", "raw", "disk", "bare")
            and (other := case.median(name)) is not None
        ]
        rows.append([title, case.unit, report.figure(median), ", ".join(others)])
    return markdown(["work", "unit", "lvolfs", "others"], rows, {2})


def publish(path: Path, root: Path) -> list[Path]:
    """Writes the figures of a result into the documentation; the files written."""
    found = results.load(path)
    drawn = plots.draw(results.outcomes(found), root / "docs/plots")
    with tempfile.TemporaryDirectory() as nowhere:
        whole = groups.catalogue(Settings.of(Path(nowhere)))
    pages = {
        root / "docs/performance.md": performance_page(found, drawn, whole),
        root / "README.md": readme_table(results.outcomes(found)),
    }
    texts = {p: between_markers(p.read_text(), t, p.name) for p, t in pages.items()}
    for page, text in texts.items():
        page.write_text(text)
    return [*texts, *(root / f"docs/plots/{name}.png" for name in drawn)]
