"""rebuild: a replica brought up to date from another, layer by layer."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import counted, format_size
from lvolfs.cli.failure import CommandFailedError
from lvolfs.cli.following import progress
from lvolfs.cli.opening import Session, open_target, split_target
from lvolfs.delta.jobs import Job, JobRegistry
from lvolfs.delta.rebuild import start_replica_rebuild
from lvolfs.delta.rebuild_report import RebuildReport
from lvolfs.delta.replica import LocalReplica, Replica
from lvolfs.rpc.remote_replica import RemoteReplica

POLL = 0.1


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
    with (
        open_target(source_target, write=True) as here,
        open_target(destination_target, write=True) as there,
    ):
        lvol = here.call("lvolfs_get_lvol", name=here.lvol(source_lvol))
        job = start_replica_rebuild(
            _replica(here),
            lvol["name"],
            _replica(there),
            destination_lvol.rpartition("/")[2],
            jobs=JobRegistry("rebuild"),
            algorithm=algorithm,
            verify=verify,
            rate=rate or 0,
            source_uuid=lvol["uuid"],
        )
        _wait(job, f"rebuild {lvol['name']}")
    job.raise_if_failed()
    report = job.result
    if json:
        output.print_json(report.as_dict())
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


def _replica(session: Session) -> Replica:
    if session.local_store is not None:
        return LocalReplica(session.local_store)
    return RemoteReplica(session.caller)


def _wait(job: Job, label: str) -> None:
    """Ctrl-C stops the rebuild where it can go on later."""
    try:
        with progress(label) as report:
            while not job.wait(POLL):
                report(job.done, job.total, job.bytes)
    except BaseException:
        job.cancel()
        job.wait()
        raise


def _show(report: RebuildReport) -> None:
    document: dict[str, Any] = report.as_dict()
    columns = ("layer", "kind", "done by", "owned", "differing", "copied", "unmapped", "moved", "s")
    rows = [
        (
            layer.name,
            layer.kind,
            layer.action + (" (resumed)" if layer.resumed else ""),
            str(layer.owned),
            str(layer.differing),
            str(layer.copied),
            str(layer.unmapped),
            format_size(layer.bytes_moved),
            f"{layer.seconds:.2f}",
        )
        for layer in report.layers
    ]
    output.show(output.table(columns, rows, right="owned differing copied unmapped moved s"))
    totals = document["totals"]
    output.say(
        f"{report.volume} on {report.destination} is up to date: "
        f"{counted(totals['copied'], 'cluster')} copied, {totals['unmapped']} unmapped, "
        f"{format_size(totals['bytes_moved'])} moved in {report.seconds:.2f} s"
    )
    for name in report.left_alone:
        output.note(f"left alone: {name}")
