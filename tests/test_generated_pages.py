"""What is generated in the documentation is what a live run gives now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def check(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs_fuse
def test_the_rpc_page_has_every_method_and_its_answers() -> None:
    check("rpc-page")


@pytest.mark.needs_fuse
def test_the_tour_of_the_readme_prints_what_it_shows() -> None:
    check("tour")
