"""Where the demo plays: a temporary directory, commands, mounts, and the clearing up."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

LVOLFS = Path(sys.executable).parent / "lvolfs"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DemoFailedError(Exception):
    """A value is not what it must be."""


def check(condition: bool, what: str) -> None:
    """Says what was checked; ends the demo when it does not hold."""
    if not condition:
        raise DemoFailedError(what)
    say(f"  ok  {what}")


def say(text: str = "") -> None:
    print(text, flush=True)


def title(text: str) -> None:
    say(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def run(*command: str | Path, accept: tuple[int, ...] = (0,), **options: Any) -> str:
    """Runs a program and returns its output; its stderr is shown if it fails."""
    words = [str(word) for word in command]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"}
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, env=environment, **options
    )
    if done.returncode not in accept:
        complaint = (done.stderr or done.stdout).strip()
        raise DemoFailedError(f"{' '.join(words)} ended with {done.returncode}: {complaint}")
    return done.stdout


def lvolfs(*words: str | Path, accept: tuple[int, ...] = (0,)) -> Any:
    """Runs an lvolfs command with --json and returns its document."""
    output = run(LVOLFS, *words, "--json", accept=accept)
    return json.loads(output)


class Stage:
    """The temporary directory and what is mounted below it."""

    def __init__(self, needed_bytes: int) -> None:
        parent = Path(os.environ.get("TMPDIR", "/var/tmp"))
        free = shutil.disk_usage(parent).free
        if free < needed_bytes:
            raise DemoFailedError(
                f"{parent} has {free >> 20} MiB free, the demo needs {needed_bytes >> 20}; "
                "set TMPDIR to a larger place"
            )
        self.directory = Path(tempfile.mkdtemp(prefix="lvolfs-demo-", dir=parent))
        self._mounted: list[Path] = []

    def mount(self, store: Path, name: str) -> Path:
        mountpoint = self.directory / name
        mountpoint.mkdir(exist_ok=True)
        self._mounted.append(mountpoint)
        run(LVOLFS, "mount", store, mountpoint)
        return mountpoint

    def unmount(self, mountpoint: Path) -> None:
        run(LVOLFS, "umount", mountpoint)
        self._mounted.remove(mountpoint)

    def clear(self) -> list[str]:
        """Unmounts and deletes everything; what could not be undone is returned."""
        problems = []
        for mountpoint in reversed(self._mounted):
            done = subprocess.run(
                [str(LVOLFS), "umount", str(mountpoint)],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode != 0 and os.path.ismount(mountpoint):
                subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False)
                problems.append(f"{mountpoint}: {done.stderr.strip()}")
        with contextlib.suppress(OSError):
            shutil.rmtree(self.directory)
        if self.directory.exists():
            problems.append(f"{self.directory} could not be deleted")
        return problems

    def __enter__(self) -> "Stage":
        def stop(number: int, frame: FrameType | None) -> None:
            del frame
            raise SystemExit(128 + number)

        # Ctrl-C ends it even where a shell has told us to ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        return self

    def __exit__(self, *error: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for problem in self.clear():
            print(f"demo: left behind: {problem}", file=sys.stderr)
