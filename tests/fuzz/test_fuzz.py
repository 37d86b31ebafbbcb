"""Every input of the corpus, and new ones for as long as LVOLFS_FUZZ_SECONDS (default 60) allow.

LVOLFS_FUZZ_ENGINE=plain makes them without coverage, which also works under AddressSanitizer.
What is found is kept below the test's directory; `python -m tests.fuzz.run TARGET FILE` shows it.
"""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.run import CORPUS, TARGETS

SECONDS = float(os.environ.get("LVOLFS_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("LVOLFS_FUZZ_SEED", str(int(time.time()))))
GUIDED = importlib.util.find_spec("atheris") is not None
ENGINE = os.environ.get("LVOLFS_FUZZ_ENGINE", "atheris" if GUIDED else "plain")


def fuzz(target: str, artifacts: Path, *options: str | Path, seconds: float) -> str:
    """In a process of its own: what is looked for may end it. Returns the last line."""
    command = [sys.executable, "-m", "tests.fuzz.run", target, "--artifacts", artifacts, *options]
    log = artifacts / "log"
    with log.open("w") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, timeout=seconds + 100, check=False
        )
    text = log.read_text(errors="replace")
    assert done.returncode == 0, f"{target}: {artifacts}\n{text[-8000:]}"
    return text.splitlines()[-1]


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus(target: str, tmp_path: Path) -> None:
    """Inputs that found something once, and those that reach far."""
    files = sorted((CORPUS / target).iterdir())
    assert files
    last = fuzz(target, tmp_path, *files, seconds=60)
    assert f"{len(files)} executions" in last


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_new_inputs(target: str, tmp_path: Path) -> None:
    seconds = SECONDS / len(TARGETS)
    options = ("--seconds", str(seconds), "--seed", str(SEED), "--engine", ENGINE)
    print(target, "seed", SEED, fuzz(target, tmp_path, *options, seconds=seconds))
