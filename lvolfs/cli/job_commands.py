"""jobs: what goes on in a store, and an end to it."""

import time
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import format_size, parse_size
from lvolfs.cli.following import IN_PROGRESS
from lvolfs.cli.opening import Session, open_target

REFRESH = 0.5


def jobs(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET | cancel TARGET ID | rate TARGET ID SIZE", help="Where to look."
        ),
    ],
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on showing until every job has ended.")
    ] = False,
    json: arguments.Json = False,
) -> None:
    """Checksum registrations, copies and rebuilds of a store; `jobs cancel TARGET ID` ends one,
    `jobs rate TARGET ID SIZE` changes its bytes per second (0: no limit)."""
    match words:
        case ["cancel", target, number] if number.isdecimal():
            _cancel(target, int(number), json=json)
        case ["rate", target, number, rate] if number.isdecimal():
            _set_rate(target, int(number), parse_size(rate), json=json)
        case [target]:
            with open_target(target) as session:
                _show(session, watch=watch, json=json)
        case _:
            raise typer.BadParameter(
                "write: jobs TARGET, jobs cancel TARGET ID, or jobs rate TARGET ID SIZE"
            )


def _cancel(target: str, number: int, *, json: bool) -> None:
    with open_target(target) as session:
        job = session.call("lvolfs_cancel_job", id=number)
    if json:
        output.print_json(job)
    else:
        output.say(f"job {number} ({job['kind']} of {job['lvol']}) is told to stop")


def _set_rate(target: str, number: int, rate: int, *, json: bool) -> None:
    with open_target(target) as session:
        job = session.call("lvolfs_set_job_rate", id=number, rate=rate)
    if json:
        output.print_json(job)
    else:
        limit = f"at most {format_size(rate)}/s" if rate else "as fast as it can"
        output.say(f"job {number} ({job['kind']} of {job['lvol']}) goes on {limit}")


def _show(session: Session, *, watch: bool, json: bool) -> None:
    listed = session.call("lvolfs_get_jobs")
    if watch and output.stdout().is_terminal and not json:
        with Live(_table(listed), console=output.stdout(), refresh_per_second=4) as live:
            while _active(listed):
                time.sleep(REFRESH)
                listed = session.call("lvolfs_get_jobs")
                live.update(_table(listed))
        return
    while watch and _active(listed):
        time.sleep(REFRESH)
        listed = session.call("lvolfs_get_jobs")
    if json:
        output.print_json(listed)
    else:
        output.show(_table(listed))


def _active(listed: list[dict[str, Any]]) -> bool:
    return any(job["state"] == IN_PROGRESS for job in listed)


def _table(listed: list[dict[str, Any]]) -> Table:
    columns = ("id", "job", "lvol", "destination", "state", "clusters", "moved", "error")
    rows = (
        (
            str(job["id"]),
            job["kind"],
            job["lvol"],
            job["destination"] or "-",
            job["state"],
            f"{job['done_clusters']}/{job['total_clusters']}",
            format_size(job["bytes"]),
            job["error"] or "-",
        )
        for job in listed
    )
    return output.table(columns, rows, right="id clusters moved")
