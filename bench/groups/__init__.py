"""Groups of cases that share a scene: `open_group(settings)` yields the cases.

A scene makes what a contestant needs when the first of its samples is taken, so choosing few
cases and contestants costs little.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from bench.case import Case, Outcome
from bench.groups import chains, data_path, first_writes, sparse_volumes, stores, sums_and_copies
from bench.groups.rebuild.cases import IN_TURN, TOGETHER
from bench.settings import Settings

Opener = Callable[[Settings], AbstractContextManager[list[Case]]]


def groups(settings: Settings) -> dict[str, Opener]:
    """In the order in which they are run: what targets are set for comes first."""
    again = range(settings.rounds)
    return {
        **{f"fio-{number + 1}": partial(data_path.open_fio, number=number) for number in again},
        "first": first_writes.open_group,
        "chain": chains.open_group,
        "sums": sums_and_copies.open_group,
        "stores": stores.open_group,
        "sparse": sparse_volumes.open_group,
        **(TOGETHER if settings.rebuild_together else IN_TURN),
        "more": data_path.open_more,
    }


def catalogue(settings: Settings) -> dict[str, Outcome]:
    """Every case and contestant that a whole run measures, without samples, by key."""
    found: dict[str, Outcome] = {}
    for open_group in groups(settings).values():
        with open_group(settings) as cases:
            for case in cases:
                outcome = found.setdefault(case.key, case.outcome())
                outcome.samples |= {name: [] for name in case.contestants}
    return found
