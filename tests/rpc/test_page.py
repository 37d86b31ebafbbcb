"""docs/rpc.md holds every method, and what a live run answers now is what it shows."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_what_a_live_run_gives() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/rpc-page", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
