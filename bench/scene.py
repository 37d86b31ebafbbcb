"""What is measured on: a mounted store with a written volume, and a plain file beside it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LVOLFS = Path(sys.executable).parent / "lvolfs"
CHUNK = 1 << 20


def execute(*words: str | Path) -> str:
    """A program's output; CalledProcessError shows what it complained about."""
    done = subprocess.run([str(w) for w in words], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout}")
    return done.stdout


def lvolfs(*words: str | Path) -> Any:
    return json.loads(execute(LVOLFS, *words, "--json"))


def timed(*words: str | Path) -> float:
    """Seconds that a program takes."""
    start = time.monotonic()
    execute(*words)
    return time.monotonic() - start


@dataclass
class Scene:
    directory: Path
    mountpoint: Path
    size: int

    @property
    def volume(self) -> Path:
        return self.mountpoint / "volumes/bench"

    @property
    def snapshot(self) -> Path:
        return self.mountpoint / "snapshots/frozen"

    @property
    def plain(self) -> Path:
        """As large as the volume, fully written, on the file system that holds the store."""
        return self.directory / "plain"

    @property
    def plain_frozen(self) -> Path:
        """The same beside the snapshot: never written to again, so as warm in the page cache."""
        return self.directory / "plain-frozen"


def fill(path: Path, size: int) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        for _ in range(size // CHUNK):
            file.write(os.urandom(CHUNK))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def set_scene(size: int) -> Iterator[Scene]:
    """Two fully written volumes' worth of store, one of them frozen; cleared up at the end."""
    parent = os.environ.get("TMPDIR", "/var/tmp")
    directory = Path(tempfile.mkdtemp(prefix="lvolfs-bench-", dir=parent))
    scene = Scene(directory, directory / "mnt", size)
    scene.mountpoint.mkdir()
    store = directory / "store"
    try:
        lvolfs("create", store, "--size", str(4 * size + (64 << 20)))
        execute(LVOLFS, "mount", store, scene.mountpoint)
        lvolfs("volume", "create", scene.mountpoint, "source", "--size", str(size))
        fill(scene.mountpoint / "volumes/source", size)
        lvolfs("snapshot", scene.mountpoint, "source", "frozen")
        lvolfs("volume", "create", scene.mountpoint, "bench", "--size", str(size))
        fill(scene.volume, size)
        fill(scene.plain, size)
        fill(scene.plain_frozen, size)
        yield scene
    finally:
        if os.path.ismount(scene.mountpoint):
            execute(LVOLFS, "umount", scene.mountpoint)
        shutil.rmtree(directory)
