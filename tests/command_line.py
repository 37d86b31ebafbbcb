"""The installed `lvolfs` command, and running it with a registry of daemons of its own."""

import os
import subprocess
import sys
from pathlib import Path

LVOLFS = Path(sys.executable).parent / "lvolfs"


class CommandLine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "LVOLFS_RUNTIME_DIR": str(folder / "run")}

    def run(self, *arguments: str | Path, status: int = 0) -> str:
        """What it prints on both channels; its exit status has to be `status`."""
        done = subprocess.run(
            [LVOLFS, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr
