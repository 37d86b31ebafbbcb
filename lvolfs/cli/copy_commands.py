"""copy and diff: move clusters, find the ones that differ."""

import os
from typing import Annotated, Any

import typer

from lvolfs.cli import arguments, comparing, output
from lvolfs.cli.amounts import counted, format_runs, format_size
from lvolfs.cli.failure import MISMATCH, CommandFailedError
from lvolfs.cli.following import follow
from lvolfs.cli.opening import open_target


def _destination(text: str) -> str:
    """The daemon has another working directory; paths go to it whole."""
    return os.path.abspath(text) if text.startswith(("/", "./", "../")) else text  # noqa: PTH100


def copy(
    target: arguments.Target,
    source: Annotated[str, typer.Argument(metavar="SRC", help="A snapshot of the store.")],
    destination: Annotated[
        str,
        typer.Argument(metavar="DST", help="An lvol of the store, /PATH or ./PATH, or an NBD URI."),
    ],
    *,
    clusters: arguments.Clusters = None,
    deep: Annotated[bool, typer.Option("--deep", help="What its ancestors own, too.")] = False,
    rate: arguments.Rate = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the copy has ended.")] = False,
    json: arguments.Json = False,
) -> None:
    """Copy the clusters that a snapshot owns itself; listed ones that it lacks are unmapped."""
    runs = arguments.cluster_runs(clusters)
    with open_target(target, write=True) as session:
        job: dict[str, Any] = session.call(
            "lvolfs_start_copy",
            source=session.lvol(source),
            destination=_destination(destination),
            clusters=runs,
            deep=deep,
            rate=rate or 0,
        )
        # A copy in this process ends with it.
        if wait or session.is_local:
            job = follow(session, job, f"copy {source}")
    if job["state"] not in ("complete", "in progress"):
        raise CommandFailedError(
            f"copy of {source} to {destination}: {job['error'] or job['state']} (copied "
            f"{job['copied_clusters']}, unmapped {job['unmapped_clusters']} of "
            f"{job['total_clusters']} clusters before)"
        )
    if json:
        output.print_json(job)
    elif job["state"] == "complete":
        output.say(
            f"copied {counted(job['copied_clusters'], 'cluster')}, "
            f"unmapped {job['unmapped_clusters']}: "
            f"{format_size(job['bytes'])} in {job['seconds']:.2f} s"
        )
    else:
        output.say(
            f"job {job['id']} copies {counted(job['total_clusters'], 'cluster')} to {destination}"
        )


def diff(
    target: arguments.Target,
    snap_a: Annotated[str, typer.Argument(metavar="SNAP_A")],
    snap_b: Annotated[
        str, typer.Argument(metavar="SNAP_B", help="Of the same store, or OTHER_TARGET:SNAP_B.")
    ],
    *,
    json: arguments.Json = False,
) -> None:
    """List the clusters that differ between two snapshots; 3 if there are any."""
    result = comparing.compare(target, snap_a, snap_b)
    if json:
        output.print_json(result)
    elif result["equal"]:
        output.say("no clusters differ")
    else:
        if result["ranges"]:
            output.say(format_runs(result["ranges"]))
        else:
            output.say("the sizes differ, the data do not")
        how = result["decided_by"]
        output.note(
            f"{result['differing_clusters']} of {result['num_clusters']} clusters differ "
            f"({how['map']} decided by map, {how['checksum']} by checksum, "
            f"{how['reading']} by reading)"
        )
    if not result["equal"]:
        raise typer.Exit(MISMATCH)
