"""What tests need of the machine and the user, and nothing can install.

A test whose need is not met fails and says so: one that is left out unsaid proves nothing. Who
cannot have it leaves such tests out by name: `make test PYTEST_ARGS='-m "not needs_root"'`.
"""

import os
from pathlib import Path

import pytest

# Of tests/mount and tests/cli; what makes a mount without them says so itself.
MOUNTING_FIXTURES = {"make_mounted", "mount"}

IS_ROOT = os.geteuid() == 0

# By marker: whether it is met, and what is missing if not.
NEEDS = {
    "needs_root": (IS_ROOT, "root: to become other users, and to mount"),
    "needs_loop_devices": (
        IS_ROOT and Path("/dev/loop-control").exists(),
        "loop devices: root and /dev/loop-control",
    ),
    "needs_fuse": (
        os.access("/dev/fuse", os.R_OK | os.W_OK),
        "access to /dev/fuse (kernel: CONFIG_FUSE_FS)",
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    for name, (_, need) in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: needs {need}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not MOUNTING_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("needs_fuse")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, (is_met, need) in NEEDS.items():
        if item.get_closest_marker(name) and not is_met:
            pytest.fail(f"needs {need}. Leave such tests out with -m 'not {name}'", pytrace=False)
