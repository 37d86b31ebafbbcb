"""Mistakes planted in the engine: the power-cut replay has to see every one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from lvolfs._native.engine import SEEDED_FAULTS
from tests.crash.life import MISTAKES
from tests.crash.lives import live_until, one_life
from tests.crash.replay import Failure
from tests.crash.shrink import script_of, shrink
from tests.torture import count

REPOSITORY = Path(__file__).parents[2]
# Within how many states each planted mistake has to show itself.
STATES = 6000


def first_failure(fault: str) -> Failure | str | None:
    """None when nobody saw anything."""
    try:
        return live_until(STATES, processes=1, fault=fault).failure
    except AssertionError as error:
        # Seen without a power cut: the store did not show what was written.
        return str(error)


@pytest.mark.parametrize("fault", sorted({*SEEDED_FAULTS, *MISTAKES}))
def test_the_replay_sees_a_planted_mistake(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    found = first_failure(fault)
    assert found is not None
    print(found)
    count("planted mistakes caught", 1)


def test_a_failure_is_shrunk_to_a_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    found = first_failure("no-page-barrier")
    assert isinstance(found, Failure)
    short = shrink(found, seconds=20)
    assert len(short.operations) < 30
    assert len(short.operations) < len(found.operations)
    assert not any(kind == "parallel" for kind, *_ in short.operations)
    script = tmp_path / "power_cut.py"
    script.write_text(script_of(short), encoding="utf-8")
    assert len(script.read_text(encoding="utf-8").splitlines()) < 45
    shown = subprocess.run(
        [sys.executable, script],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "LVOLFS_SEEDED_FAULTS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 1, shown.stderr
    assert shown.stdout.strip() == short.problem
    # Without the mistake the same script has nothing to show.
    script.write_text(script_of(short).replace("fault='no-page-barrier'", "fault=None"))
    clean = subprocess.run(
        [sys.executable, script],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert clean.returncode == 0, clean.stdout


def test_nobody_plants_mistakes_by_accident() -> None:
    with pytest.raises(PermissionError):
        one_life(1, 1, "short-write")
