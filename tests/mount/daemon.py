"""A daemon for tests: forked, since everything is imported here already."""

import ctypes
import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path

from lvolfs.lvstore.store import Lvstore
from lvolfs.mount.options import MountOptions
from lvolfs.mount.session import serve_mount

PR_SET_PDEATHSIG = 1


def fork_daemon(
    store: Path, mountpoint: Path, options: str, log: Path, uid: int = 0
) -> tuple[int, int]:
    """(pid, descriptor from which "ready" can be read once the mount answers)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    status = 1
    try:
        os.close(reader)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        # Killed tests leave no mount behind.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _serve(str(store), str(mountpoint), MountOptions.parse(options), writer)
        status = 0
    except BaseException:
        logging.exception("the daemon failed")
    finally:
        logging.shutdown()
        os._exit(status)


def _serve(store: str, mountpoint: str, options: MountOptions, ready: int) -> None:
    faulthandler.enable(sys.__stderr__)
    logging.basicConfig(
        level=logging.INFO,
        format="%(levelname)s %(name)s %(message)s",
        stream=os.fdopen(2, "w", closefd=False),
        force=True,
    )
    opened = Lvstore.open(store, read_only=options.read_only)
    serve_mount(opened, mountpoint, options, on_ready=lambda: os.write(ready, b"ready\n") and None)
