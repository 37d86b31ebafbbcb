"""One recorded life and the power cuts of it."""

import random
from pathlib import Path

from tests.crash.history import Recording
from tests.crash.oracle import ContractBrokenError, check_state
from tests.crash.write_log import cuts, read_log

STEPS = 40
SUBSETS = 3


def replay(directory: Path, seed: int, limit: int, fault: str | None = None) -> int:
    """Tries the cuts of one recorded life; returns how many, `limit` at most.

    Raises AssertionError, with what it takes to see it again, for the first state that breaks
    the contract.
    """
    recording = Recording(directory, seed, fault)
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
