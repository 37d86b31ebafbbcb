"""Power cuts at every point of a recorded life, and in every order the cache may lose writes.

LVOLFS_CRASH_STATES sets how many states are tried in all (default 20,000), LVOLFS_CRASH_SECONDS
for how long at least, LVOLFS_CRASH_SEED the first seed, LVOLFS_CRASH_PROCESSES how many
processes (default: one per core). A failure is shrunk to a script that shows it.
"""

import os
from pathlib import Path

import pytest

from tests.crash.lives import live_until
from tests.crash.shrink import script_of, shrink
from tests.torture import count

STATES = int(os.environ.get("LVOLFS_CRASH_STATES", "20000"))
SECONDS = float(os.environ.get("LVOLFS_CRASH_SECONDS", "0"))
FIRST_SEED = int(os.environ.get("LVOLFS_CRASH_SEED", "1"))
PROCESSES = int(os.environ.get("LVOLFS_CRASH_PROCESSES", "0"))


@pytest.mark.timeout(600 + STATES / 50 + 4 * SECONDS)
def test_every_state_after_a_power_cut_keeps_the_contract(tmp_path: Path) -> None:
    result = live_until(STATES, seconds=SECONDS, first_seed=FIRST_SEED, processes=PROCESSES)
    if result.failure is not None:
        found = shrink(result.failure)
        script = tmp_path / "power_cut.py"
        script.write_text(script_of(found), encoding="utf-8")
        pytest.fail(
            f"{result.failure}\nAs short as it gets, to be run with python from the top of the "
            f"repository ({script}):\n{script.read_text(encoding='utf-8')}"
        )
    print(f"{result.lives} lives, {result.seconds:.0f} s")
    count("states replayed after power cuts", result.states)
    assert result.states >= STATES
