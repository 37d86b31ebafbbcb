"""File systems of the kernel, and one of them in a volume, mounted by a loop device."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loop_device import loop_device
from tests.mount.conftest import run

# name, MiB that it needs, how it is made and checked
KINDS = [
    ("ext4", 64, ["mkfs.ext4", "-q", "-F"], ["fsck.ext4", "-fn"]),
    ("xfs", 320, ["mkfs.xfs", "-q", "-f"], ["xfs_repair", "-n"]),
]


@contextmanager
def loop_mount(file: Path, where: Path, kind: str, *, direct: bool) -> Iterator[None]:
    """Mounts the file system in a volume; gone afterwards, whatever happens."""
    where.mkdir(exist_ok=True)
    with loop_device(file, f"--direct-io={'on' if direct else 'off'}") as device:
        run("mount", "-t", kind, device, where)
        try:
            yield
        finally:
            subprocess.run(["umount", where], check=False)
            subprocess.run(["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)
