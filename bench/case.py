"""A case: one piece of work that several contestants do, and the samples that it gave."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Sample = dict[str, float]
"""One measurement. "value" is the figure that counts, in the case's unit; others are beside it."""


@dataclass(frozen=True)
class Case:
    """`measure(contestant)` does the work once and returns a Sample.

    `rounds` limits how often slow contestants are measured: {"rsync": 1}. `sequential`: the
    contestants are measured one after the other, in groups of their own.
    """

    key: str
    title: str
    unit: str
    contestants: tuple[str, ...]
    measure: Callable[[str], Sample]
    better: Literal["more", "less"] = "more"
    rounds: dict[str, int] = field(default_factory=dict)
    sequential: bool = False

    def limited_to(self, wanted: set[str]) -> "Case | None":
        """The same with fewer contestants; None if none is left."""
        left = tuple(name for name in self.contestants if not wanted or name in wanted)
        return replace(self, contestants=left) if left else None

    def outcome(self) -> "Outcome":
        """Of this case, without samples."""
        return Outcome(
            self.key,
            self.title,
            self.unit,
            self.better,
            {name: [] for name in self.contestants},
            self.sequential,
        )


@dataclass
class Outcome:
    """All samples of a case, by contestant, in the order of the rounds.

    `failures`: why a contestant has no samples, or no more of them.
    """

    key: str
    title: str
    unit: str
    better: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    sequential: bool = False
    failures: dict[str, str] = field(default_factory=dict)

    def values(self, contestant: str, figure: str = "value") -> list[float]:
        return [s[figure] for s in self.samples.get(contestant, []) if figure in s]

    def median(self, contestant: str, figure: str = "value") -> float | None:
        values = self.values(contestant, figure)
        return statistics.median(values) if values else None

    def spread(self, contestant: str, figure: str = "value") -> tuple[float, float] | None:
        """Least and greatest sample."""
        values = self.values(contestant, figure)
        return (min(values), max(values)) if values else None

    def ratio(self, contestant: str, against: str, figure: str = "value") -> float | None:
        """How many times better `contestant` is, by medians; 2.0 is twice as good."""
        return self.ratio_to(contestant, self, against, figure)

    def ratio_to(
        self, contestant: str, other: "Outcome", against: str, figure: str = "value"
    ) -> float | None:
        """The same, of `against` in another case with the same unit."""
        mine, others = self.median(contestant, figure), other.median(against, figure)
        if not mine or not others:
            return None
        return mine / others if self.better == "more" else others / mine

    def ratio_spread(self, contestant: str, against: str) -> tuple[float, float] | None:
        """Least and greatest ratio of the two within one round."""
        pairs = list(zip(self.values(contestant), self.values(against), strict=False))
        if not pairs or not all(mine and other for mine, other in pairs):
            return None
        ratios = [m / o if self.better == "more" else o / m for m, o in pairs]
        return min(ratios), max(ratios)

    def document(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "better": self.better,
            "sequential": self.sequential,
            "samples": {name: samples for name, samples in self.samples.items() if samples},
            "medians": {name: self.median(name) for name in self.samples if self.samples[name]},
            "failures": self.failures,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Outcome":
        names = ("key", "title", "unit", "better", "samples", "sequential")
        found = cls(**{name: document[name] for name in names})
        found.failures = document.get("failures", {})
        found.samples = {
            **found.samples,
            **{n: [] for n in found.failures if n not in found.samples},
        }
        return found
