"""Sizes, durations and cluster lists: how people type them and how they are shown."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
MAX_SIZE = 1 << 63


def parse_size(text: str) -> int:
    """Bytes from 4096, 10G, 1.5T, 64KiB; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size: write 4096, 64K, 100M, 10G or 1.5T")
    number, unit = match.groups()
    factor = _UNITS[unit.upper()]
    size = int(number) * factor if "." not in number else int(float(number) * factor)
    if size >= MAX_SIZE:
        raise typer.BadParameter(f"{text!r} is more than any store can hold")
    return size


def format_size(size: float) -> str:
    """1536 -> 1.5 KiB. At most four significant digits."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return (
        f"{size:.0f} {units[0]}" if size == int(size) or size >= 1000 else f"{size:.1f} {units[0]}"
    )


def counted(number: int, noun: str) -> str:
    """1 cluster, 2 clusters."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_duration(seconds: float) -> str:
    """83 -> 1:23."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


def parse_clusters(text: str) -> list[list[int]]:
    """[first, count] runs from 0-7,12."""
    runs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise typer.BadParameter(f"{text!r} is not a list of clusters: write 0-7,12")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise typer.BadParameter(f"{part.strip()!r} ends before it begins")
        runs.append([first, last - first + 1])
    return runs


def format_runs(runs: Iterable[Sequence[int]]) -> str:
    """0-7,12 from [first, count] runs."""
    return ",".join(
        f"{first}" if count == 1 else f"{first}-{first + count - 1}" for first, count in runs
    )


Size = Annotated[int, typer.Option(parser=parse_size, metavar="SIZE", help="As in 512M or 10G.")]
OptionalSize = Annotated[
    int | None, typer.Option(parser=parse_size, metavar="SIZE", help="As in 512M or 10G.")
]
