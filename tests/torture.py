"""What the tests that `make torture` makes long have counted."""

import os
from pathlib import Path


def count(what: str, number: int) -> None:
    """Something that was tried and held; `make torture` ends with the sums."""
    print(f"{what}: {number}")
    counts = os.environ.get("LVOLFS_TORTURE_COUNTS")
    if counts:
        with Path(counts).open("a", encoding="utf-8") as file:
            file.write(f"{what}\t{number}\n")
