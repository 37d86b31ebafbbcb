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


def run(
    cases: Sequence[Case], rounds: int, say: Callable[[str], None], outcomes: dict[str, Outcome]
) -> None:
    """Every case in every round; samples go into `outcomes` as they are taken, by key.

    A contestant that fails fails the run: no figure is made up.
    """
    for case in cases:
        outcomes.setdefault(
            case.key,
            Outcome(case.key, case.title, case.unit, case.better, sequential=case.sequential),
        )
        for name in case.contestants:
            outcomes[case.key].samples.setdefault(name, [])
    for number in range(rounds):
        for case in cases:
            for name in rotated(case.contestants, number):
                if number >= case.rounds.get(name, rounds):
                    continue
                start = time.monotonic()
                sample = case.measure(name)
                outcomes[case.key].samples[name].append(sample)
                say(
                    f"round {number + 1}/{rounds} {case.key} {name}: "
                    f"{sample['value']:,.6g} {case.unit} ({time.monotonic() - start:.1f} s)"
                )
