"""Acting as somebody who is not root, in directories that pytest keeps to its own user."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def within_reach(path: Path) -> Iterator[None]:
    """Everybody may pass through the directories above it, for as long as the block lasts."""
    changed = []
    for directory in path.parents:
        mode = directory.stat().st_mode & 0o7777
        if not mode & 0o001:
            changed.append((directory, mode))
            directory.chmod(mode | 0o011)
    try:
        yield
    finally:
        for directory, mode in changed:
            directory.chmod(mode)
