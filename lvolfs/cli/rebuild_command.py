"""rebuild: a replica brought up to date from another, layer by layer."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import counted, format_size
from lvolfs.cli.failure import CommandFailedError
from lvolfs.cli.following import follow
from lvolfs.cli.opening import open_target, split_target


def rebuild(
    source: Annotated[str, typer.Argument(metavar="SRC_TARGET:LVOL")],
    destination: Annotated[str, typer.Argument(metavar="DST_TARGET:LVOL")],
    *,
    rate: arguments.Rate = None,
    algorithm: Annotated[
        Literal["xxh3", "crc64"], typer.Option(help="Of checksums that have to be registered.")
    ] = "xxh3",
    verify: Annotated[
        bool, typer.Option(help="Read what was copied back and compare checksums.")
    ] = True,
    json: arguments.Json = False,
) -> None:
    """Make a volume of another store the same as one here, with all its snapshots.

    Snapshots that are there and equal are kept; of the others only clusters that differ are
    copied where both sides have checksums. Run it again after an interruption.
    """
    source_target, source_lvol = _split(source)
    destination_target, destination_lvol = _split(destination)
    _refuse_same(source_target, destination_target)
    with open_target(source_target, write=True) as session:
        job = session.call(
            "lvolfs_rebuild",
            source=session.lvol(source_lvol),
            volume=destination_lvol.rpartition("/")[2],
            path=os.path.abspath(destination_target),  # noqa: PTH100
            algorithm=algorithm,
            verify=verify,
            rate=rate or 0,
        )
        job = follow(session, job, f"rebuild {job['lvol']}")
    if job["state"] != "complete":
        raise CommandFailedError(job["error"] or f"the rebuild was {job['state']}")
    report = job["result"]
    if json:
        output.print_json(report)
    else:
        _show(report)


def _split(text: str) -> tuple[str, str]:
    parts = split_target(text)
    if parts is None or not parts[1]:
        raise CommandFailedError(
            f"{text!r} is not TARGET:LVOL, with a TARGET that exists; "
            "write for example replica.img:disk"
        )
    return parts


def _refuse_same(source: str, destination: str) -> None:
    if Path(source).samefile(destination):
        raise CommandFailedError(
            f"{source} and {destination} are the same store; a replica needs another one"
        )


def _show(report: dict[str, Any]) -> None:
    columns = ("layer", "kind", "done by", "owned", "differing", "copied", "unmapped", "moved", "s")
    rows = [
        (
            layer["name"],
            layer["kind"],
            layer["action"] + (" (resumed)" if layer["resumed"] else ""),
            str(layer["owned"]),
            str(layer["differing"]),
            str(layer["copied"]),
            str(layer["unmapped"]),
            format_size(layer["bytes_moved"]),
            f"{layer['seconds']:.2f}",
        )
        for layer in report["layers"]
    ]
    output.show(output.table(columns, rows, right="owned differing copied unmapped moved s"))
    totals = report["totals"]
    output.say(
        f"{report['volume']} on {report['destination']} is up to date: "
        f"{counted(totals['copied'], 'cluster')} copied, {totals['unmapped']} unmapped, "
        f"{format_size(totals['bytes_moved'])} moved in {report['seconds']:.2f} s"
    )
    for name in report["left_alone"]:
        output.note(f"left alone: {name}")
