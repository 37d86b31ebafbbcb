"""Tables: the ratio table with its targets, and every case with medians and ranges."""

from collections.abc import Iterable, Mapping

from rich.table import Table

from bench.case import Outcome
from bench.targets import Row, judge


def figure(value: float) -> str:
    """Three to four significant digits; thousands with commas."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def span(limits: tuple[float, float] | None) -> str:
    return f"{figure(limits[0])} - {figure(limits[1])}" if limits else ""


def verdict(row: Row) -> str:
    return {True: "yes", False: "NO", None: "not measured"}[row.met]


def amount(value: float | None, unit: str) -> str:
    return "" if value is None else f"{figure(value)} {unit}".replace(" x", "x")


def target_cells(row: Row) -> list[str]:
    return [
        row.title,
        row.target,
        amount(row.measured, row.unit),
        span(row.spread),
        amount(row.ceiling, row.unit),
        verdict(row),
    ]


TARGET_HEADER = ["work", "target", "measured", "range", "ceiling", "met"]
TARGET_RIGHT = {1, 2, 3, 4}
CASE_HEADER = ["case", "unit", "contestant", "median", "range", "samples", "lvolfs ratio"]
CASE_RIGHT = {3, 4, 5, 6}


def case_cells(outcome: Outcome) -> list[list[str]]:
    rows = []
    for number, name in enumerate(outcome.samples):
        ratio = outcome.ratio("lvolfs", name) if name != "lvolfs" else None
        median = outcome.median(name)
        nothing = "failed" if name in outcome.failures else "-"
        rows.append(
            [
                outcome.title if number == 0 else "",
                outcome.unit if number == 0 else "",
                name,
                nothing if median is None else figure(median),
                span(outcome.spread(name)),
                str(len(outcome.samples[name])),
                "" if ratio is None else f"{ratio:.2f}x",
            ]
        )
    return rows


def grid(title: str, header: list[str], rows: Iterable[list[str]], right: set[int]) -> Table:
    table = Table(title=title)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number in right else "left")
    for row in rows:
        table.add_row(*row)
    return table


def target_table(outcomes: Mapping[str, Outcome]) -> Table:
    rows = [target_cells(row) for row in judge(outcomes) if row.measured is not None]
    return grid("ratios of medians, and their targets", TARGET_HEADER, rows, TARGET_RIGHT)


def case_table(outcomes: Mapping[str, Outcome]) -> Table:
    rows = [cells for outcome in outcomes.values() for cells in case_cells(outcome)]
    return grid("medians, with the range over all rounds", CASE_HEADER, rows, CASE_RIGHT)


def failures(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Who failed, where and why: a line for each contestant and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes.values():
        for name, why in outcome.failures.items():
            found.setdefault((name, why), []).append(outcome.title)
    return [f"{name} ({'; '.join(titles)}): {why}" for (name, why), titles in found.items()]
