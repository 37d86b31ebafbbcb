"""A mount whose daemon began with nothing of this process in its memory."""

import os
import sys
import time
from pathlib import Path

from tests.mount.conftest import Mounted


def start_afresh(mounted: Mounted) -> None:
    """A daemon by itself: what a fork inherits of this process would blur its memory."""
    command = str(Path(sys.executable).with_name("lvolfs"))
    words = [command, "mount", "--foreground", str(mounted.store_path), str(mounted.path)]
    log = str(mounted.log)
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    mounted.pid = os.posix_spawn(command, words, dict(os.environ), file_actions=actions)
    deadline = time.monotonic() + 30
    while not mounted.path.is_mount():
        assert time.monotonic() < deadline, mounted.log_text()
        time.sleep(0.05)
