"""Programs: run to their end, timed, or kept as daemons that never outlive the benchmark."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LVOLFS = Path(sys.executable).parent / "lvolfs"


class ProgramError(RuntimeError):
    """A program failed; the message is the command and what it complained about."""


def execute(*words: str | Path, input: bytes | None = None) -> str:
    """A program's output. Raises ProgramError."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(command, check=False, capture_output=True, input=input)
    except FileNotFoundError as error:
        raise ProgramError(f"{command[0]} is missing: scripts/setup --bench installs it") from error
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip()
        raise ProgramError(
            f"{' '.join(command)}: exit status {done.returncode}: "
            f"{complaint or done.stdout.decode(errors='replace').strip()}"
        )
    return done.stdout.decode()


def lvolfs(*words: str | Path) -> Any:
    """The JSON document of an lvolfs command."""
    return json.loads(execute(LVOLFS, *words, "--json"))


def timed(*words: str | Path) -> float:
    """Seconds that a program takes."""
    start = time.monotonic()
    execute(*words)
    return time.monotonic() - start


@contextlib.contextmanager
def daemon(
    *words: str | Path, ready: Callable[[], bool], end: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves while the block runs, which begins when `ready()`.

    `end` asks it to leave (default: SIGTERM). It is killed when it has not left 20 s later,
    and gets SIGTERM from the kernel when the benchmark itself is killed. ProgramError with what
    it printed when it does not get ready.
    """
    command = [str(word) for word in words]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 60
            while not ready():
                ended = process.poll() is not None
                if ended or time.monotonic() > deadline:
                    output.seek(0)
                    complaint = output.read().decode(errors="replace").strip()
                    why = f"exit status {process.returncode}" if ended else "not ready after 60 s"
                    raise ProgramError(f"{' '.join(command)}: {why}: {complaint}")
                time.sleep(0.005)
            yield process
        finally:
            end_process(process, end)


def end_process(process: subprocess.Popen[bytes], end: Callable[[], None] | None) -> None:
    try:
        if process.poll() is None:
            if end:
                end()
            else:
                process.send_signal(signal.SIGTERM)
        process.wait(20)
    except (subprocess.TimeoutExpired, ProgramError):
        process.kill()
        process.wait()
        raise


def unmount(path: Path) -> None:
    """Unmounts; waits for a file that was just closed. Detaches what stays busy and says so."""
    for _ in range(100):
        if not os.path.ismount(path):
            return
        try:
            execute("umount", path)
        except ProgramError as error:
            if "busy" not in str(error):
                raise
            time.sleep(0.05)
        else:
            return
    execute("umount", "--lazy", path)
    raise ProgramError(f"{path} was busy for 5 s; it was detached")
