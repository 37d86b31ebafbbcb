"""fsx: thousands of random operations of all kinds on a volume, from a C program.

LVOLFS_FSX_OPERATIONS sets how many (default 3000), LVOLFS_FSX_SEED where chance begins. The same
seed does the same again; a failure shows the end of the log.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from tests.mount.conftest import Mounted, both_transports, run

OPERATIONS = int(os.environ.get("LVOLFS_FSX_OPERATIONS", "3000"))
SEED = int(os.environ.get("LVOLFS_FSX_SEED", "1"))
CLUSTER = 65536
MOST_CLUSTERS = 20


@pytest.fixture(scope="module")
def fsx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("fsx") / "fsx"
    source = Path(__file__).with_name("fsx.c")
    run("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source)
    return program


def perform(fsx: Path, volume: Path, seed: int, log: Path, *more: str) -> bytes:
    """The content that the volume has to have afterwards."""
    words = [fsx, volume, CLUSTER, MOST_CLUSTERS, seed, OPERATIONS, log, *more]
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, timeout=60 + OPERATIONS / 20, check=False)
    if done.returncode:
        last = "\n".join(log.read_text().splitlines()[-30:])
        pytest.fail(
            f"{' '.join(command)}\n{last}\nexit status {done.returncode}\n{done.stderr.decode()}"
        )
    return done.stdout


@both_transports
@pytest.mark.timeout(120 + OPERATIONS / 10)
@pytest.mark.parametrize(
    ("options", "more"), [("", ()), ("", ("direct",)), ("page_cache", ("direct",))]
)
def test_a_volume_is_like_memory(
    make_mounted: Callable[..., Mounted], fsx: Path, options: str, more: tuple[str, ...]
) -> None:
    mounted = make_mounted(size=64 << 20, cluster_size=CLUSTER, options=options)
    volume = mounted.volumes / "v"
    volume.touch()
    content = perform(fsx, volume, SEED, mounted.directory / "operations", *more)
    assert volume.read_bytes() == content
    mounted.restart()
    assert volume.read_bytes() == content
    volume.unlink()
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []


def test_it_sees_a_difference(fsx: Path, tmp_path: Path) -> None:
    """On a plain file, whose size is not rounded up: that has to be noticed at once."""
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(pytest.fail.Exception, match=r"operation \d+:"):
        perform(fsx, plain, SEED, tmp_path / "operations")
