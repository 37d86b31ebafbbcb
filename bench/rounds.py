"""Interleaved rounds: every contestant of a case in turn, each round in another order.

A drift of the machine so hits all contestants of a case, and none is always first.
"""

import time
import traceback
from collections.abc import Callable, Sequence

from bench.case import Case, Outcome
from bench.processes import ProgramError


class Clock:
    """When to stop: a run that has used up its time takes no further samples.

    `skipped`: how many were not taken.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.skipped = 0

    @property
    def is_up(self) -> bool:
        return time.monotonic() >= self.end


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of round `number`: each leads in turn, odd rounds go backwards."""
    count, step = len(names), -1 if number % 2 else 1
    return [names[(number + step * i) % count] for i in range(count)]


def reason_of(error: Exception) -> str:
    """One line for the tables. What is neither the system's nor a program's error is named."""
    text = " ".join(str(error).split())
    known = isinstance(error, OSError | ProgramError)
    return text if known and text else f"{type(error).__name__}: {text}"


def run(
    cases: Sequence[Case],
    rounds: int,
    say: Callable[[str], None],
    outcomes: dict[str, Outcome],
    *,
    clock: Clock,
    taken: Callable[[], None] = lambda: None,
) -> None:
    """Every case in every round.

    Samples go into `outcomes` by key, then `taken` is called.
    A contestant that fails in a case is left out of it from there on; why is kept in the
    outcome. No figure is made up.
    """
    for case in cases:
        outcome = outcomes.setdefault(case.key, case.outcome())
        for name in case.contestants:
            outcome.samples.setdefault(name, [])
    for number in range(rounds):
        for case in cases:
            outcome = outcomes[case.key]
            for name in rotated(case.contestants, number):
                wanted = case.rounds.get(name, rounds)
                if number >= wanted or name in outcome.failures:
                    continue
                if clock.is_up:
                    clock.skipped += 1
                    continue
                start = time.monotonic()
                label = f"round {number + 1}/{wanted} {case.key} {name}"
                try:
                    sample = case.measure(name)
                except Exception as error:  # whatever it is, it costs this contestant's row only
                    outcome.failures[name] = reason_of(error)
                    if not isinstance(error, OSError | ProgramError):
                        say(traceback.format_exc().strip())
                    say(f"{label}: FAILED: {outcome.failures[name]}")
                else:
                    outcome.samples[name].append(sample)
                    say(
                        f"{label}: {sample['value']:,.6g} {case.unit} "
                        f"({time.monotonic() - start:.1f} s)"
                    )
                taken()
