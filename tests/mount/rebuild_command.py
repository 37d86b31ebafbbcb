"""`lvolfs rebuild` as a process that something can happen to meanwhile."""

import subprocess

from tests.command_line import LVOLFS

PATIENCE = 120


def start_rebuild(source: str, destination: str, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [LVOLFS, "rebuild", source, destination, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit status and what it said on stderr."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors
