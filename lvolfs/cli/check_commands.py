"""check and scrub: is the store in order, are the data what they were."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from lvolfs.blobstore.check import check_store
from lvolfs.cli import arguments, output
from lvolfs.cli.checksum_commands import verdict, verify_snapshot
from lvolfs.cli.failure import MISMATCH, CommandFailedError
from lvolfs.cli.opening import open_target
from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import registry


def check(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store that is not mounted.")],
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what opening for writing puts right.")
    ] = False,
    json: arguments.Json = False,
) -> None:
    """Check the metadata of a store that nobody has open; 3 if something is wrong."""
    entry = registry.find_by_store(store)
    if entry is not None:
        raise CommandFailedError(
            f"{store} is mounted at {entry.mountpoint} (pid {entry.pid}); unmount it first"
        )
    findings = check_store(store)
    repaired = False
    if repair and any(finding.severity == "warning" for finding in findings):
        with Lvstore.open(store):
            pass
        repaired = True
        findings = check_store(store)
    wrong = [finding for finding in findings if finding.severity != "note"]
    if json:
        output.print_json(
            {
                "store": store,
                "consistent": not wrong,
                "repaired": repaired,
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            output.say(f"{finding.severity}: {finding.object}: {finding.text}")
        if not wrong:
            output.say(f"{store}: consistent" + (" after the repair" if repaired else ""))
    if wrong:
        raise typer.Exit(MISMATCH)


def scrub(target: arguments.Target, *, json: arguments.Json = False) -> None:
    """Verify every registered checksum of a store; 3 if data differ from what was registered."""
    results: list[dict[str, Any]] = []
    unregistered: list[str] = []
    with open_target(target) as session:
        for lvol in session.call("lvolfs_get_lvols"):
            if lvol["type"] != "snapshot":
                continue
            if lvol["checksum"] is None:
                unregistered.append(lvol["name"])
            else:
                results.append(verify_snapshot(session, lvol["uuid"], lvol["name"]))
    mismatched = [result for result in results if result["mismatched"]]
    if json:
        output.print_json({"snapshots": results, "unregistered": unregistered})
    else:
        for result in results:
            output.say(verdict(result))
        for name in unregistered:
            output.say(f"{name}: no checksums are registered")
        if not results and not unregistered:
            output.say("the store has no snapshots")
    if mismatched:
        raise typer.Exit(MISMATCH)
