"""Interleaved rounds: every contestant of a case in turn, each round in another order.

A drift of the machine so hits all contestants of a case, and none is always first.
"""

import time
from collections.abc import Callable, Sequence

from bench.case import Case, Outcome


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of round `number`: each leads in turn, odd rounds go backwards."""
    count, step = len(names), -1 if number % 2 else 1
    return [names[(number + step * i) % count] for i in range(count)]


def run(cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> list[Outcome]:
    """Every case in every round. A contestant that fails fails the run: no figure is made up."""
    outcomes = {case.key: Outcome(case.key, case.title, case.unit, case.better) for case in cases}
    for number in range(rounds):
        for case in cases:
            samples = outcomes[case.key].samples
            for name in rotated(case.contestants, number):
                if number >= case.rounds.get(name, rounds):
                    continue
                start = time.monotonic()
                sample = case.measure(name)
                samples.setdefault(name, []).append(sample)
                say(
                    f"round {number + 1}/{rounds} {case.key} {name}: "
                    f"{sample['value']:,.6g} {case.unit} ({time.monotonic() - start:.1f} s)"
                )
    for case in cases:
        found = outcomes[case.key].samples
        outcomes[case.key].samples = {n: found[n] for n in case.contestants if n in found}
    return list(outcomes.values())
