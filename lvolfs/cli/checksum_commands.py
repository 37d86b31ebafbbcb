"""checksum register|show|stop|verify: per-cluster checksums of snapshots."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import counted, format_runs, format_size
from lvolfs.cli.failure import MISMATCH, CommandFailedError
from lvolfs.cli.following import follow
from lvolfs.cli.opening import Session, open_target

app = typer.Typer(
    help="Register, show, verify the checksums of a snapshot's clusters.",
    no_args_is_help=True,
)

PAGE = 16384
"""Clusters asked for at a time."""


@app.command("register")
def register(
    target: arguments.Target,
    snap: arguments.Snapshot,
    *,
    clusters: arguments.Clusters = None,
    algorithm: Annotated[
        Literal["xxh3", "crc64"], typer.Option(help="crc64 is what SPDK computes.")
    ] = "xxh3",
    json: arguments.Json = False,
) -> None:
    """Compute and keep a checksum of every cluster that a snapshot owns."""
    runs = arguments.cluster_runs(clusters)
    with open_target(target, write=True) as session:
        reference = session.lvol(snap)
        job = session.call(
            "lvolfs_register_checksums", name=reference, clusters=runs, algorithm=algorithm
        )
        job = follow(session, job, f"checksum {snap}")
        if job["state"] != "complete":
            raise CommandFailedError(
                f"checksum registration of {snap}: {job['error'] or job['state']}"
            )
        summary = session.call("lvolfs_get_checksums", name=reference, count=0)
    summary = {name: summary[name] for name in ("name", "algorithm", "state", "checksum")}
    if json:
        output.print_json(summary | {"job": job})
    else:
        value = f", snapshot checksum {summary['checksum']}" if summary["checksum"] else ""
        output.say(
            f"registered {algorithm} of {counted(job['total_clusters'], 'cluster')} of {snap} "
            f"({format_size(job['bytes'])} read){value}"
        )


def pages(session: Session, reference: str) -> Iterator[dict[str, Any]]:
    """The checksum table of an lvol, page by page."""
    first = 0
    while True:
        page = session.call("lvolfs_get_checksums", name=reference, first=first, count=PAGE)
        yield page
        first += len(page["clusters"])
        if first >= page["num_clusters"] or not page["clusters"]:
            return


@app.command("show")
def show(
    target: arguments.Target,
    snap: arguments.Snapshot,
    *,
    clusters: arguments.Clusters = None,
    json: arguments.Json = False,
) -> None:
    """Print the registered checksums: written clusters, their values, the snapshot's own."""
    runs = arguments.cluster_runs(clusters)
    with open_target(target) as session:
        table = list(pages(session, session.lvol(snap)))
    head = {name: table[0][name] for name in ("name", "algorithm", "state", "checksum")}
    if head["algorithm"] is None:
        raise CommandFailedError(
            f"{snap} has no registered checksums; run: lvolfs checksum register {target} {snap}"
        )
    listed = [cluster for page in table for cluster in page["clusters"]]
    if runs is not None:
        for first, count in runs:
            if first + count > len(listed):
                raise CommandFailedError(
                    f"{snap} has {len(listed)} clusters; {first + count - 1} is past its end"
                )
        listed = [listed[i] for first, count in runs for i in range(first, first + count)]
    if json:
        output.print_json(head | {"clusters": listed})
        return
    output.show(
        output.facts(
            [
                ("snapshot", head["name"]),
                ("algorithm", head["algorithm"]),
                ("state", head["state"]),
                ("checksum", head["checksum"] or "-"),
            ]
        )
    )
    rows = ((str(row["index"]), row["state"], row["checksum"] or "-") for row in listed)
    output.show(output.table(("cluster", "state", "checksum"), rows, right="cluster"))


@app.command("stop")
def stop(target: arguments.Target, snap: arguments.Snapshot) -> None:
    """Stop a registration that is under way."""
    with open_target(target) as session:
        session.call("lvolfs_stop_checksums", name=session.lvol(snap))
    output.say(f"stopped the checksum registration of {snap}")


def verify_snapshot(
    session: Session, reference: str, label: str, runs: list[list[int]] | None = None
) -> dict[str, Any]:
    """Re-reads a snapshot's registered clusters: a document with the ones that differ."""
    job = session.call("lvolfs_verify_checksums", name=reference, clusters=runs)
    job = follow(session, job, f"verify {label}")
    if job["state"] != "complete":
        raise CommandFailedError(f"verification of {label}: {job['error'] or job['state']}")
    return {"name": label, **job["result"], "seconds": job["seconds"], "bytes": job["bytes"]}


def verdict(result: dict[str, Any]) -> str:
    """A line about what verify_snapshot found."""
    if result["mismatched"]:
        bad = format_runs(result["mismatched"])
        return f"{result['name']}: not what was registered: clusters {bad}"
    text = f"{result['name']}: as registered: {counted(result['checked'], 'cluster')}"
    if result["unregistered"]:
        text += f"; not registered: {result['unregistered']}"
    return text


@app.command("verify")
def verify(
    target: arguments.Target,
    snap: arguments.Snapshot,
    *,
    clusters: arguments.Clusters = None,
    json: arguments.Json = False,
) -> None:
    """Read the clusters again and compare them with what is registered; 3 if they differ."""
    runs = arguments.cluster_runs(clusters)
    with open_target(target) as session:
        result = verify_snapshot(session, session.lvol(snap), snap, runs)
    if json:
        output.print_json(result)
    else:
        output.say(verdict(result))
    if result["mismatched"]:
        raise typer.Exit(MISMATCH)
