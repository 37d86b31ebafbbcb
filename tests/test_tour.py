"""README's two-minute tour, played as it is written there."""

import subprocess
import sys
from pathlib import Path

from tests import needs

ROOT = Path(__file__).parent.parent


@needs.fuse
def test_the_tour_prints_what_the_readme_shows() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/tour", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
