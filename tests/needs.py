"""What some tests need of the machine and the user that nothing can install: without it they are
skipped, and pytest's summary says why. `make test` is for ordinary users and containers, too;
`.ci/run` is run as root on a machine that has all of it."""

import os
from pathlib import Path

import pytest

root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: to become other users, and to mount"
)
loop_devices = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
    reason="needs loop devices (root, /dev/loop-control)",
)
fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK),
    reason="needs access to /dev/fuse (kernel: CONFIG_FUSE_FS)",
)
