"""A Go program with the requests, the types and the habits of Longhorn's client brings a
replica up to date: every reply has to fit its Go type, every error the code it looks for."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from lvolfs.lvstore.store import Lvstore
from tests.command_line import CommandLine
from tests.rpc.target_process import end_daemon

SOURCES = sorted((Path(__file__).parent / "longhorn").glob("*.go"))
MIB = 1 << 20
CLUSTERS = 320


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go")
    environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(folder / "cache")}
    command = ["go", "build", "-o", folder / "client", *SOURCES]
    subprocess.run(command, check=True, env=environment, timeout=200)
    return folder / "client"


def make_store(path: Path, name: str, written: dict[int, bytes]) -> None:
    """A volume `head` over a snapshot `snap` with those clusters."""
    with Lvstore.create(str(path), size=(CLUSTERS + 40) * MIB, name=name) as store:
        head = store.create_volume("head", CLUSTERS * MIB)
        for cluster, byte in written.items():
            head.pwrite(byte * MIB, cluster * MIB)
        head.snapshot("snap")


def test_a_replica_is_rebuilt(program: Path, tmp_path: Path) -> None:
    common = {cluster: bytes([cluster % 250 + 1]) for cluster in range(0, CLUSTERS, 40)}
    newer = {**common, 3: b"n", 40: b"m", CLUSTERS - 1: b"l"}
    older = {**common, 3: b"o", 100: b"p"}
    files = [tmp_path / name for name in ("src", "dst", "copy")]
    make_store(files[0], "src", newer)
    make_store(files[1], "dst", older)
    with files[2].open("wb") as file:
        file.truncate(CLUSTERS * MIB)
    socket = str(tmp_path / "s")
    CommandLine(tmp_path).run("serve", "--rpc-socket", socket, "--log", tmp_path / "log")
    try:
        done = subprocess.run(
            [program, socket, *files], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        end_daemon(socket)
    report = json.loads(done.stdout)
    assert report["mismatching"] == [3, 40, 100, CLUSTERS - 1]
    assert (report["copied"], report["unmapped"], report["outstanding"]) == (3, 1, 1000)
    with Lvstore.open(str(files[0])) as source, Lvstore.open(str(files[1])) as destination:
        rebuilt = destination.get("snap")
        assert rebuilt.fragmap() == source.get("snap").fragmap()
        assert [lvol.name for lvol in destination.lvols] == ["head", "snap"]
        assert destination.get("head").parent is rebuilt
        for cluster in sorted({*newer, *older}):
            expected = newer.get(cluster, b"\0") * MIB
            assert destination.get("head").pread(MIB, cluster * MIB) == expected
    with files[2].open("rb") as file:
        for cluster in sorted(newer):
            file.seek(cluster * MIB)
            assert file.read(MIB) == newer[cluster] * MIB
