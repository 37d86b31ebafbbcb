"""Makes the life behind a failure short, and writes it down as a script that shows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from lvolfs.lvstore import store as store_module
from tests.crash.life import Geometry, Life, Operation
from tests.crash.lives import NO_LIMIT, memory_directory
from tests.crash.replay import Failure, problem_of, replay
from tests.crash.write_log import Cut, Disk, Kept

Steps = tuple[Operation, ...]

SCRIPT = '''"""{problem}"""

from tests.crash.life import Geometry
from tests.crash.shrink import show

show(
    {geometry},
    fault={fault!r},
    steps=[
{steps}
    ],
    requests={requests},
    kept={kept},
)
'''


def shrink(failure: Failure, seconds: float = 60) -> Failure:
    """The same kind of failure of as few steps, as early a cut and as few writes as can be
    found in that time. Steps with threads may go another way each time; they stay if need be."""
    end = time.monotonic() + seconds
    steps = failure.operations[: _steps_begun(failure)]
    best = _first_failure(failure, steps) or failure
    best = _first_failure(best, _one_thread(best.operations)) or best
    size = max(1, len(best.operations) // 2)
    while time.monotonic() < end:
        smaller = _without_some(best, size, end)
        if smaller is not None:
            best = smaller
        elif size == 1:
            break
        else:
            size //= 2
    return _with_less_kept(best)


def _steps_begun(failure: Failure) -> int:
    # The step "nothing" has no operation, unless the life begins with its format.
    skipped = 0 if failure.geometry.base in {"unmade", "foreign"} else 1
    return max(0, failure.cut.last_mark // 2 + 1 - skipped)


def _one_thread(steps: Steps) -> Steps:
    """The same with what threads did one after the other, so that it is the same every time."""
    alone: list[Operation] = []
    for kind, *arguments in steps:
        if kind != "parallel":
            alone.append((kind, *arguments))
            continue
        for plan in arguments:
            for operation in plan:
                alone += [operation, ("flush",)]
    return tuple(alone)


def _without_some(failure: Failure, size: int, end: float) -> Failure | None:
    """One with `size` steps in a row less."""
    steps = failure.operations
    for first in range(len(steps) - size, -1, -1):
        if time.monotonic() > end:
            return None
        found = _first_failure(failure, (*steps[:first], *steps[first + size :]))
        if found is not None:
            return found
    return None


def _life(
    directory: Path, geometry: Geometry, fault: str | None, steps: Sequence[Operation]
) -> Life:
    life = Life(directory, geometry, fault)
    for step in steps:
        if step != ("format",):
            life.do(*step)
    life.close()
    return life


def _first_failure(failure: Failure, steps: Steps) -> Failure | None:
    with memory_directory() as directory, patch.object(store_module, "FLUSH_INTERVAL", 0):
        try:
            life = _life(directory, failure.geometry, failure.fault, steps)
        except AssertionError:
            return None
        _, found = replay(directory, life, failure.seed, NO_LIMIT, failure.fault)
    if found is None:
        return None
    return replace(found, operations=found.operations[: max(1, _steps_begun(found))])


def _with_less_kept(failure: Failure) -> Failure:
    """Every write that is not needed left out, and those that are needed not torn."""
    kept = failure.cut.kept
    for item in failure.cut.kept:
        fewer = tuple(other for other in kept if other != item)
        if _problem(failure, fewer) is not None:
            kept = fewer
    problem = _problem(failure, kept)
    if problem is None:
        return failure
    return replace(failure, cut=replace(failure.cut, kept=kept), problem=problem)


def _problem(failure: Failure, kept: tuple[Kept, ...]) -> str | None:
    return problem_after(
        failure.geometry, failure.fault, failure.operations, failure.cut.requests, kept
    )


def problem_after(
    geometry: Geometry,
    fault: str | None,
    steps: Sequence[Operation],
    requests: int,
    kept: tuple[Kept, ...],
) -> str | None:
    """Lives these steps, cuts the power after so many requests, and keeps these of the
    unflushed: what breaks the contract then."""
    with memory_directory() as directory, patch.object(store_module, "FLUSH_INTERVAL", 0):
        life = _life(directory, geometry, fault, steps)
        entries = life.entries()
        marks = [
            entry.offset for entry in entries[:requests] if not entry.length and entry.kind == 5
        ]
        cut = Cut(requests, kept, marks[-1] if marks else -1)
        with Disk(directory / "state.img", life.base, entries, life.metadata_end) as disk:
            disk.show_cut(cut)
            return problem_of(disk, life, cut)


def show(
    geometry: Geometry,
    *,
    fault: str | None,
    steps: Sequence[Operation],
    requests: int,
    kept: tuple[Kept, ...],
) -> None:
    """What a script calls: prints what is wrong and ends with status 1, or 0 if nothing is.
    With threads it may take more than one attempt."""
    problem = None
    for _ in range(20 if any(kind == "parallel" for kind, *_ in steps) else 1):
        problem = problem or problem_after(geometry, fault, steps, requests, kept)
    print(problem or "The contract is kept.")
    raise SystemExit(1 if problem else 0)


def script_of(failure: Failure) -> str:
    return SCRIPT.format(
        problem=failure.problem.replace("\\", "\\\\").replace('"""', "'''"),
        geometry=failure.geometry,
        fault=failure.fault,
        steps="\n".join(f"        {step!r}," for step in failure.operations),
        requests=failure.cut.requests,
        kept=failure.cut.kept,
    )
