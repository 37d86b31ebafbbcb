"""scrub: are the data what they were, and can another store give back what is not."""

import tempfile
from typing import Annotated, Any

import typer

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import format_runs
from lvolfs.cli.checksum_commands import verdict, verify_snapshot
from lvolfs.cli.comparing import content
from lvolfs.cli.explanation import explain
from lvolfs.cli.failure import MISMATCH, CommandFailedError
from lvolfs.cli.opening import Session, open_target
from lvolfs.delta.content import Content
from lvolfs.report.documents import join_clusters
from lvolfs.rpc.errors import RpcError

BATCH = 32
"""Clusters that are staged for a daemon at a time."""


def scrub(
    target: arguments.Target,
    *,
    repair_from: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER_TARGET",
            help="Write bad clusters anew from the snapshots of the same names there.",
        ),
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Verify every registered checksum of a store; 3 if data differ from what was registered."""
    results: list[dict[str, Any]] = []
    unregistered: list[str] = []
    with open_target(target, write=repair_from is not None) as session:
        for lvol in session.call("lvolfs_get_lvols"):
            if lvol["type"] != "snapshot":
                continue
            if lvol["checksum"] is None:
                unregistered.append(lvol["name"])
            else:
                found = verify_snapshot(session, lvol["uuid"], lvol["name"])
                results.append(found | {"uuid": lvol["uuid"]})
        bad = [result for result in results if result["mismatched"]]
        if repair_from is not None and bad:
            with open_target(repair_from) as other:
                for result in bad:
                    _repair(session, other, repair_from, result)
    for result in results:
        result.pop("uuid")
    if json:
        output.print_json({"snapshots": results, "unregistered": unregistered})
    else:
        _print(results, unregistered)
    if any(_left(result) for result in results):
        raise typer.Exit(MISMATCH)


def _left(result: dict[str, Any]) -> bool:
    return bool(result["refused"] if "refused" in result else result["mismatched"])


def _repair(session: Session, other: Session, there: str, result: dict[str, Any]) -> None:
    """Fills in `repaired` and `refused`, as runs, and `problem` where the replica has no copy."""
    name = result["name"]
    wanted = [c for first, count in result["mismatched"] for c in range(first, first + count)]
    done: dict[str, list[int]] = {"repaired": [], "refused": []}
    try:
        copy = content(other, name)
        _check_shape(session, copy)
        for position in range(0, len(wanted), BATCH):
            batch = wanted[position : position + BATCH]
            reply = _repair_batch(session, copy, result["uuid"], batch)
            for key, listed in done.items():
                listed += [c for first, count in reply[key] for c in range(first, first + count)]
    except (OSError, RpcError) as error:
        result["problem"] = f"{there}: {explain(error)}"
        done["refused"] = [cluster for cluster in wanted if cluster not in done["repaired"]]
    result |= {key: join_clusters(sorted(listed)) for key, listed in done.items()}


def _check_shape(session: Session, copy: Content) -> None:
    size = session.store["cluster_size"]
    if copy.cluster_size != size:
        raise CommandFailedError(
            f"{copy.name} has clusters of {copy.cluster_size} bytes, not {size}; it cannot repair"
        )


def _repair_batch(
    session: Session, copy: Content, reference: str, clusters: list[int]
) -> dict[str, Any]:
    size = copy.cluster_size
    with tempfile.NamedTemporaryFile(prefix="lvolfs-repair-") as staged:
        with copy.reading() as endpoint:
            for cluster in clusters:
                staged.write(endpoint.pread(size, cluster * size))
        staged.flush()
        reply: dict[str, Any] = session.call(
            "lvolfs_repair_clusters",
            name=reference,
            clusters=[[cluster, 1] for cluster in clusters],
            source=staged.name,
        )
    return reply


def _print(results: list[dict[str, Any]], unregistered: list[str]) -> None:
    for result in results:
        output.say(verdict(result))
        if result.get("repaired"):
            output.say(f"{result['name']}: repaired: clusters {format_runs(result['repaired'])}")
        if "problem" in result:
            output.say(f"{result['name']}: not repaired: {result['problem']}")
        elif result.get("refused"):
            output.say(
                f"{result['name']}: not repaired: clusters {format_runs(result['refused'])}; the "
                "replica does not have what was registered, either"
            )
    for name in unregistered:
        output.say(f"{name}: no checksums are registered")
    if not results and not unregistered:
        output.say("the store has no snapshots")
