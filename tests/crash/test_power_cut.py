"""Power cuts at every point of a recorded life, and in every order the cache may lose writes.

LVOLFS_CRASH_STATES sets how many states are tried in all (default 2000); LVOLFS_CRASH_SEED
the first seed. A failure prints the seed and the cut that show it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lvolfs._native.engine import SEEDED_FAULTS
from tests.crash.replay import replay

STATES = int(os.environ.get("LVOLFS_CRASH_STATES", "2000"))
FIRST_SEED = int(os.environ.get("LVOLFS_CRASH_SEED", "1"))
# Within how many states each planted mistake has to show itself.
FAULT_STATES = 4000


@pytest.fixture
def memory_directory() -> Iterator[Path]:
    """In memory where there is some: thousands of small stores are written and flushed."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="lvolfs-crash-", dir=parent) as directory:
        yield Path(directory)


def lives(directory: Path, states: int, fault: str | None = None) -> tuple[int, int]:
    """Replays one life after the other until `states` states were tried; states and lives."""
    tried, seed = 0, FIRST_SEED
    while tried < states:
        place = directory / str(seed)
        place.mkdir()
        try:
            tried += replay(place, seed, states - tried, fault)
        finally:
            for file in place.iterdir():
                file.unlink()
        seed += 1
    return tried, seed - FIRST_SEED


@pytest.mark.timeout(1800)
def test_every_state_after_a_power_cut_keeps_the_contract(memory_directory: Path) -> None:
    tried, count = lives(memory_directory, STATES)
    print(f"{tried} states after power cuts of {count} lives kept the contract")


@pytest.mark.parametrize("fault", sorted(SEEDED_FAULTS))
def test_the_replay_sees_a_planted_mistake(
    memory_directory: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    with pytest.raises(AssertionError):
        lives(memory_directory, FAULT_STATES, fault)


def test_nobody_plants_mistakes_by_accident(memory_directory: Path) -> None:
    with pytest.raises(PermissionError):
        replay(memory_directory, 1, 1, "short-write")
