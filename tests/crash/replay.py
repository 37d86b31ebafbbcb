"""One recorded life and the power cuts of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from tests.crash.chance import Chance, geometry_of
from tests.crash.life import Geometry, Life, Operation
from tests.crash.oracle import check_state
from tests.crash.write_log import Cut, Disk, cuts

STEPS = 40
SUBSETS = 3
# Of how many states one is opened under a recording, to cut the power during its repair, too.
SECOND_CUTS = 40


@dataclass(frozen=True)
class Failure:
    """A state that breaks the contract, and all that it takes to see it again."""

    seed: int
    geometry: Geometry
    fault: str | None
    operations: tuple[Operation, ...]
    cut: Cut
    # texts of the steps around the cut
    near: tuple[str, ...]
    problem: str

    def __str__(self) -> str:
        return (
            f"LVOLFS_CRASH_SEED={self.seed}: after {self.cut.requests} requests, of the unflushed "
            f"{self.cut.kept}, mark {self.cut.last_mark} (steps around it: {list(self.near)}): "
            f"{self.problem}"
        )


def record(directory: Path, seed: int, steps: int = STEPS, fault: str | None = None) -> Life:
    life = Life(directory, geometry_of(seed), fault)
    Chance(life, seed).live(steps)
    return life


def replay(
    directory: Path, life: Life, seed: int, limit: int, fault: str | None = None
) -> tuple[int, Failure | None]:
    """Tries the cuts of a recorded life, `limit` at most: how many held, and the first that
    breaks the contract."""
    tried = 0
    chance = random.Random(f"cuts {seed}")
    with Disk(directory / "state.img", life.base, life.entries(), life.metadata_end) as disk:
        for cut in cuts(disk, chance, SUBSETS):
            if tried == limit:
                break
            problem = problem_of(disk, life, cut)
            if problem is None and chance.randrange(SECOND_CUTS) == 0:
                disk.show_again(cut)
                again, problem = _cut_its_repair(directory, disk, life, cut, chance)
                tried += again
            if problem is not None:
                near = tuple(step.text for step in life.steps[max(0, cut.last_mark // 2 - 6) :][:8])
                operations = tuple(life.operations)
                return tried, Failure(seed, life.geometry, fault, operations, cut, near, problem)
            tried += 1
    return tried, None


def _cut_its_repair(
    directory: Path, disk: Disk, life: Life, cut: Cut, chance: random.Random
) -> tuple[int, str | None]:
    """Opens and closes the store that the disk shows, as `lvolfs check --repair` does too, and
    cuts the power in between: how many of these states held, and what broke the contract."""
    place = directory / "repair"
    place.mkdir()
    tried = 0
    try:
        base, entries = life.repair(disk, place, force_replay=chance.random() < 0.5)
        with Disk(place / "again.img", base, entries, life.metadata_end) as second:
            for _ in cuts(second, chance, 1):
                problem = problem_of(second, life, cut)
                if problem is not None:
                    return tried, f"after another cut, during the repair: {problem}"
                tried += 1
    except OSError:
        # A store that was being formatted need not open.
        if cut.last_mark > 0 or life.steps[0].text != "format":
            raise
    finally:
        rmtree(place)
    return tried, None


def problem_of(disk: Disk, life: Life, cut: Cut) -> str | None:
    """Why the state that the disk shows breaks the contract, None if it does not."""
    try:
        check_state(disk, life, cut.last_mark)
    except (AssertionError, OSError) as error:
        return str(error) or repr(error)
    return None
