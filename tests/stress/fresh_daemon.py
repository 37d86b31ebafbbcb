"""A mount whose daemon began with nothing of this process in its memory."""

import contextlib
import os
import time

from lvolfs.rpc import registry
from tests.command_line import LVOLFS
from tests.mount.conftest import Mounted


def start_afresh(mounted: Mounted) -> None:
    """A daemon by itself: what a fork inherits of this process would blur its memory."""
    command = str(LVOLFS)
    words = [command, "mount", "--foreground", str(mounted.store_path), str(mounted.path)]
    log = str(mounted.log)
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    mounted.pid = os.posix_spawn(command, words, dict(os.environ), file_actions=actions)
    deadline = time.monotonic() + 30
    while not _answers(mounted):
        assert time.monotonic() < deadline, mounted.log_text()
        time.sleep(0.05)


def _answers(mounted: Mounted) -> bool:
    """On its mount and its socket; what is mounted there may be what a crash has left."""
    with contextlib.suppress(OSError):
        entry = registry.find_by_store(str(mounted.store_path))
        return mounted.volumes.is_dir() and entry is not None and entry.pid == mounted.pid
    return False
