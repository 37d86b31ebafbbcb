"""Waits for a job and shows how far it is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lvolfs.cli import output
from lvolfs.cli.amounts import format_duration, format_size
from lvolfs.cli.opening import Session

if TYPE_CHECKING:
    from rich.progress import Progress

POLL = 0.1
LINE_EVERY = 5.0
IN_PROGRESS = "in progress"

Report = Callable[[int, int, int], None]
"""report(done, total, bytes): clusters done of total, bytes moved so far."""


class _Lines:
    """Progress for logs: a line every few seconds."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int, moved: int) -> None:
        now = time.monotonic()
        if now - self._last < LINE_EVERY:
            return
        self._last = now
        elapsed = now - self._start
        left = elapsed / done * (total - done) if done else 0
        output.note(
            f"{self._label}: {done} of {total} clusters, {format_size(moved / elapsed)}/s, "
            f"{format_duration(left)} left"
        )


class _Bar:
    """Progress for people: a bar with rate and time left."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None, rate="")
        self._start = time.monotonic()

    def __call__(self, done: int, total: int, moved: int) -> None:
        elapsed = max(time.monotonic() - self._start, 1e-6)
        rate = f"{format_size(moved / elapsed)}/s"
        self._progress.update(self._task, completed=done, total=total, rate=rate)


@contextmanager
def progress(label: str) -> Any:
    """Gives a Report to call as often as one likes. Writes to stderr only."""
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.stderr(), transient=True) as bars:
        yield _Bar(bars, label)


def follow(session: Session, job: dict[str, Any], label: str) -> dict[str, Any]:
    """Waits until a job has ended and returns its last document. Ctrl-C cancels the job."""
    try:
        with progress(label) as report:
            while job["state"] == IN_PROGRESS:
                # Inflating does not count bytes.
                moved = job["bytes"] or job["done_clusters"] * session.store["cluster_size"]
                report(job["done_clusters"], job["total_clusters"], moved)
                job = session.call("lvolfs_wait_job", id=job["id"], timeout=POLL)
    except KeyboardInterrupt:
        session.call("lvolfs_cancel_job", id=job["id"])
        raise
    return job
