"""A file system of the kernel on a volume, and the daemon killed under it: what was flushed is
there after its own recovery, and it is consistent. LVOLFS_LOOP_KILLS (default 2), each."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from tests.mount.conftest import MIB, Mounted, run
from tests.mount.file_load import content
from tests.mount.kernel_file_systems import KINDS, loop_mount
from tests.torture import count

KILLS = int(os.environ.get("LVOLFS_LOOP_KILLS", "2"))
SEED = int(os.environ.get("LVOLFS_LOOP_KILL_SEED", "1"))
LOAD = Path(__file__).with_name("file_load.py")

pytestmark = [
    pytest.mark.needs_loop_devices,
    pytest.mark.timeout(60 + 60 * KILLS),
]


def release(device: str, where: Path) -> None:
    """Lets go of a file system whose disk is gone, if it was mounted at all, and waits until its
    device is gone, too."""
    run("umount", "-l", where, check=False, timeout=30)
    # The last reference may be one of a process that is ending just now.
    subprocess.run(["losetup", "-d", device], check=False, timeout=30, capture_output=True)
    deadline = time.monotonic() + 20
    while device in run("losetup", "--list", "--noheadings", "--output", "NAME"):
        assert time.monotonic() < deadline, f"{device} does not go away"
        time.sleep(0.05)


def load_and_kill(mounted: Mounted, file: Path, inside: Path, kind: str, seed: int) -> list[str]:
    """Lines of file_load, up to when the daemon died under it."""
    inside.mkdir(exist_ok=True)
    device = run("losetup", "-f", "--show", "--direct-io=on", file).strip()
    try:
        run("mount", "-t", kind, device, inside)
        lines = mounted.directory / "lines"
        with lines.open("w") as output:
            load = subprocess.Popen(
                [sys.executable, LOAD, inside, str(seed)],
                stdout=output,
                stderr=subprocess.DEVNULL,
            )
            try:
                time.sleep(1 + random.Random(seed).random())
                assert load.poll() is None, lines.read_text()
                mounted.kill()
                load.wait(30)
            finally:
                load.send_signal(signal.SIGKILL)
    finally:
        release(device, inside)
    return lines.read_text().splitlines()


@pytest.mark.parametrize(("kind", "size", "make", "check"), KINDS, ids=["ext4", "xfs"])
def test_a_file_system_survives_kills(
    make_mounted: Callable[..., Mounted], kind: str, size: int, make: list[str], check: list[str]
) -> None:
    mounted = make_mounted(size=512 * MIB, cluster_size=256 * 1024)
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, size * MIB)
    run(*make, file)
    inside = mounted.directory / "inside"
    kept: set[str] = set()
    for round_ in range(KILLS):
        lines = load_and_kill(mounted, file, inside, kind, SEED * 1000 + round_)
        for line in lines:
            word, name = line.split()
            assert word != "wrong", line
            (kept.add if word == "kept" else kept.discard)(name)
        errors = [item for item in check_store(str(mounted.store_path)) if item.severity == "error"]
        assert errors == []
        mounted.start()
        # Mounting replays the journal; after that nothing may be wrong.
        with loop_mount(file, inside, kind, direct=True):
            for name in kept:
                (path,) = inside.glob(f"*/{name}")
                assert path.read_bytes() == content(name), path
        run(*check, file)
    assert len(kept) > 5 * KILLS
    count("kills survived", KILLS)
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []
