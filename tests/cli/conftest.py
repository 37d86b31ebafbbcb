"""The command line as a user meets it: exit status, stdout, stderr."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lvolfs.cli import main
from tests.command_line import LVOLFS

MIB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of daemons of the test's own."""
    directory = tmp_path_factory.mktemp("run")
    directory.chmod(0o700)
    monkeypatch.setenv("LVOLFS_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("LVOLFS_DEBUG", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def call(*words: object, expect: int | None = 0) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        outcome = Outcome(status, captured.out, captured.err)
        assert "Traceback" not in outcome.err
        if expect is not None:
            assert status == expect, outcome
        if expect == 1:
            assert outcome.err.startswith("lvolfs: ")
            assert outcome.err.count("\n") == 1, outcome.err
        return outcome

    return call


@pytest.fixture
def store(tmp_path: Path, run: Run) -> Path:
    """A store with a volume `disk`: clusters 0, 1 and 5 of 8 written, snapshot `monday` of it."""
    path = tmp_path / "store.img"
    run("create", path, "--size", "64M")
    run("volume", "create", path, "disk", "--size", "8M")
    write(path, "disk", {0: b"a", 1: b"b", 5: b"c"})
    run("snapshot", path, "disk", "monday")
    return path


def write(path: Path, name: str, clusters: dict[int, bytes]) -> None:
    """Fills clusters of a closed store's lvol with a byte each."""
    from lvolfs import Lvstore

    with Lvstore.open(str(path)) as opened:
        for cluster, byte in clusters.items():
            opened.get(name).pwrite(byte * MIB, cluster * MIB)


@pytest.fixture
def mount(tmp_path: Path, run: Run) -> Iterator[Callable[[Path], Path]]:
    """Mounts stores by the real command; everything is unmounted at the end, come what may."""
    mounted: list[Path] = []

    def call(store: Path, *options: object) -> Path:
        where = tmp_path / f"mnt{len(mounted)}"
        where.mkdir()
        mounted.append(where)
        done = subprocess.run(
            [LVOLFS, "mount", store, where, *map(str, options)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return where

    yield call
    for where in mounted:
        if os.path.ismount(where):
            done = subprocess.run(
                [LVOLFS, "umount", where], check=False, capture_output=True, text=True, timeout=60
            )
            if done.returncode != 0:
                subprocess.run(["fusermount3", "-uz", where], check=False)
