"""NBD servers in processes of their own: nbdkit on a unix socket."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30


@dataclass(frozen=True)
class NbdServer:
    socket: Path
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={self.socket}"


@contextlib.contextmanager
def nbd_server(path: Path, *arguments: str) -> Iterator[NbdServer]:
    """nbdkit with these arguments, which listens at `path`; killed in the end, even if stopped."""
    process = subprocess.Popen(
        ["nbdkit", "--foreground", "--exit-with-parent", "--unix", path, *arguments]
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(path):
            assert process.poll() is None, "nbdkit has ended"
            assert time.monotonic() < deadline, "nbdkit does not listen"
            time.sleep(0.01)
        yield NbdServer(path, process)
    finally:
        process.kill()
        process.wait(PATIENCE)


def answers(path: Path) -> bool:
    """Somebody listens there; the file alone is there a little earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
