"""Programs: run to their end, timed, or kept as daemons that never outlive the benchmark."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LVOLFS = Path(sys.executable).parent / "lvolfs"
PATIENCE = 300.0
"""Seconds that a program may take before it counts as hanging."""


class ProgramError(RuntimeError):
    """A program failed; the message is the command and what it complained about."""


def wait_for_end(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Whether it ended in time. At once when it does: Popen.wait with a limit looks again after
    1, 2, 4 and up to 50 ms, which is a good part of what a fast program takes."""
    descriptor = os.pidfd_open(process.pid)
    try:
        ended = bool(select.select([descriptor], [], [], patience)[0])
    finally:
        os.close(descriptor)
    if ended:
        process.wait()
    return ended


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def execute(*words: str | Path, patience: float = PATIENCE) -> str:
    """A program's output. Raises ProgramError.

    A program that hangs is killed, and left behind where even that does not end it: it waits
    for a file system then, whose daemon is ended when its contestant is taken down.
    """
    command = [str(word) for word in words]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=complaints
            )
        except FileNotFoundError as error:
            raise ProgramError(
                f"{command[0]} is missing: scripts/setup --bench installs it"
            ) from error
        try:
            ended = wait_for_end(process, patience)
        except BaseException:
            kill(process)
            raise
        if not ended:
            kill(process)
            raise ProgramError(f"{' '.join(command)}: hung for {patience:.0f} s")
        texts = []
        for file in (output, complaints):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode != 0:
        raise ProgramError(
            f"{' '.join(command)}: exit status {process.returncode}: "
            f"{texts[1].strip() or texts[0].strip()}"
        )
    return texts[0]


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
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends it in order
        )
        try:
            deadline = time.monotonic() + 60
            while not (is_itself(process.pid) and ready()):
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


def is_itself(pid: int) -> bool:
    """Whether a daemon runs its own program; before, it is us or setpriv, and might outlive us."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    ours = Path("/proc/self/cmdline").read_bytes()
    return words not in (b"", ours) and not words.startswith(b"setpriv\0")


def end_process(process: subprocess.Popen[bytes], end: Callable[[], None] | None) -> None:
    """`end` is called for a process that is gone, too: its mount may not be."""
    try:
        if end:
            end()
        elif process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
    except (subprocess.TimeoutExpired, ProgramError):
        process.kill()
        process.wait()
        raise


def mounted(path: Path) -> bool:
    """Also true of a mount whose daemon is gone, for which os.path.ismount() is not."""
    text = str(path).replace("\\", "\\134").replace(" ", "\\040")
    lines = Path("/proc/self/mounts").read_text().split("\n")
    return any(line.split(" ")[1] == text for line in lines if line)


def unmount(path: Path) -> None:
    """Unmounts; waits for a file that was just closed. Detaches what stays busy and says so."""
    for _ in range(100):
        if not mounted(path):
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
