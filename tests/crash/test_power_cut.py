"""Power cuts at every point of a recorded life, and in every order the cache may lose writes.

LVOLFS_CRASH_STATES sets how many states are tried in all (default 2000); LVOLFS_CRASH_SEED
the first seed. A failure prints the seed and the cut that show it.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.crash.history import Recording
from tests.crash.oracle import ContractBrokenError, check_state
from tests.crash.write_log import cuts, read_log

STATES = int(os.environ.get("LVOLFS_CRASH_STATES", "2000"))
FIRST_SEED = int(os.environ.get("LVOLFS_CRASH_SEED", "1"))
STEPS = 40
SUBSETS = 3


@pytest.fixture
def memory_directory() -> Iterator[Path]:
    """In memory where there is some: thousands of small stores are written and flushed."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="lvolfs-crash-", dir=parent) as directory:
        yield Path(directory)


def replay(directory: Path, seed: int, limit: int) -> int:
    """Tries the cuts of one recorded life; returns how many, `limit` at most."""
    recording = Recording(directory, seed)
    recording.run(STEPS)
    recording.close()
    entries = read_log(recording.log)
    state = directory / "state.img"
    tried = 0
    chance = random.Random(seed)
    for cut in cuts(recording.base, entries, chance=chance, subsets=SUBSETS):
        if tried == limit:
            break
        state.write_bytes(cut.image)
        try:
            check_state(state, recording.history, cut.last_mark)
        except (ContractBrokenError, OSError) as error:
            steps = recording.history.steps
            near = [step.text for step in steps[max(0, cut.last_mark // 2 - 6) :][:8]]
            raise AssertionError(
                f"LVOLFS_CRASH_SEED={seed}: {cut.description}, mark {cut.last_mark} "
                f"(steps around it: {near}): {error}"
            ) from error
        tried += 1
    return tried


@pytest.mark.timeout(1800)
def test_every_state_after_a_power_cut_keeps_the_contract(memory_directory: Path) -> None:
    tried, seed = 0, FIRST_SEED
    while tried < STATES:
        directory = memory_directory / str(seed)
        directory.mkdir()
        tried += replay(directory, seed, STATES - tried)
        for file in directory.iterdir():
            file.unlink()
        seed += 1
    print(f"{tried} states after power cuts of {seed - FIRST_SEED} lives kept the contract")
