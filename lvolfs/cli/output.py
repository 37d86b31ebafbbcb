"""What commands print: one JSON document, or tables and lines for people.

Results go to stdout, progress and messages to stderr. Colours and bars only on a terminal.
rich is imported by what needs it: loading it takes longer than most commands with --json.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 10_000
"""Where nobody looks at a terminal nothing is wrapped or cut."""


def stdout() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=True)


def stderr() -> Console:
    from rich.console import Console

    width = None if sys.stderr.isatty() else _PIPE_WIDTH
    return Console(file=sys.stderr, width=width, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def say(message: str) -> None:
    """A line of result for people."""
    stdout().print(message, markup=False)


def note(message: str) -> None:
    """A line about what is going on; not part of the result."""
    stderr().print(message, markup=False)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, right: str = "") -> Table:
    """A table whose columns named in `right` (separated by spaces) are right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    aligned = right.split()
    for column in columns:
        numeric = column.replace(" ", "_") in aligned
        grid.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one to a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(no_wrap=True)
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def show(renderable: Any) -> None:
    stdout().print(renderable, soft_wrap=False)
