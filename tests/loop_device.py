"""Loop devices: block devices whose medium is a file that can be looked at beside them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def loop_device(file: Path, *options: str) -> Iterator[str]:
    """The path of one over `file`, with these options of losetup; detached in the end."""
    attached = subprocess.run(
        ["losetup", "--find", "--show", *options, file],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    device = attached.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
