"""Cases, rounds, medians. Both sides of a case are measured in turn, so that drift hits both."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Case:
    """One comparison: what lvolfs does, and what the plain tool does with the same data.

    Both give a figure of which more is better, in `unit`.
    """

    name: str
    unit: str
    lvolfs: Callable[[], float]
    plain: Callable[[], float]
    plain_name: str
    lvolfs_figures: list[float] = field(default_factory=list)
    plain_figures: list[float] = field(default_factory=list)

    def measure(self, *, plain_first: bool) -> None:
        sides = [
            (self.lvolfs, self.lvolfs_figures),
            (self.plain, self.plain_figures),
        ]
        for side, figures in reversed(sides) if plain_first else sides:
            figures.append(side())

    @property
    def ratio(self) -> float:
        return statistics.median(self.lvolfs_figures) / statistics.median(self.plain_figures)

    def document(self) -> dict[str, object]:
        return {
            "name": self.name,
            "unit": self.unit,
            "against": self.plain_name,
            "lvolfs": self.lvolfs_figures,
            "plain": self.plain_figures,
            "lvolfs_median": statistics.median(self.lvolfs_figures),
            "plain_median": statistics.median(self.plain_figures),
            "ratio": self.ratio,
        }


def run(cases: list[Case], rounds: int, console: Console) -> None:
    """Every case once per round; the order of the sides changes from round to round."""
    for number in range(rounds):
        for case in cases:
            console.print(f"round {number + 1} of {rounds}: {case.name}", markup=False)
            case.measure(plain_first=bool(number % 2))


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def spread(figures: list[float]) -> str:
    return f"{figure(min(figures))}-{figure(max(figures))}"


def table(cases: list[Case]) -> Table:
    grid = Table(title="medians, with the range over all rounds")
    for name in ("case", "unit", "lvolfs", "range", "plain", "range", "against", "ratio"):
        grid.add_column(name, justify="left" if name in ("case", "unit", "against") else "right")
    for case in cases:
        grid.add_row(
            case.name,
            case.unit,
            figure(statistics.median(case.lvolfs_figures)),
            spread(case.lvolfs_figures),
            figure(statistics.median(case.plain_figures)),
            spread(case.plain_figures),
            case.plain_name,
            f"{case.ratio:.2f}",
        )
    return grid
