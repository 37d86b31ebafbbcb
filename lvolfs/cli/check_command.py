"""check: is the metadata in order, and what can be put right without guessing."""

from dataclasses import asdict
from typing import Annotated

import typer

from lvolfs.blobstore.check import Finding, check_store
from lvolfs.blobstore.errors import FormatError
from lvolfs.cli import arguments, output
from lvolfs.cli.failure import MISMATCH, CommandFailedError
from lvolfs.delta import unreadable_tables
from lvolfs.lvstore.damaged import remove_damaged
from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import registry


def check(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store that is not mounted.")],
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what has one right answer.")
    ] = False,
    give_up_damaged: Annotated[
        bool,
        typer.Option(
            "--remove-damaged", help="With --repair: delete damaged lvols for good, freeing space."
        ),
    ] = False,
    json: arguments.Json = False,
) -> None:
    """Check the metadata of a store that nobody has open; 3 if something is wrong."""
    entry = registry.find_by_store(store)
    if entry is not None:
        raise CommandFailedError(
            f"{store} is mounted at {entry.mountpoint} (pid {entry.pid}); unmount it first"
        )
    if give_up_damaged and not repair:
        raise typer.BadParameter("--remove-damaged needs --repair, too")
    findings, can_be_opened = _find(store)
    repairs: list[tuple[str, str]] = []
    if repair and findings and can_be_opened:
        repairs = _repair(store, findings, give_up_damaged=give_up_damaged)
        findings, _ = _find(store)
    wrong = [finding for finding in findings if finding.severity != "note"]
    if json:
        output.print_json(
            {
                "store": store,
                "consistent": not wrong,
                "repaired": bool(repairs),
                "repairs": [{"object": what, "text": text} for what, text in repairs],
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        _print(store, findings, repairs, consistent=not wrong)
    if wrong:
        raise typer.Exit(MISMATCH)


def _find(path: str) -> tuple[list[Finding], bool]:
    """The findings, and whether the store can be opened at all."""
    findings = check_store(path)
    try:
        opened = Lvstore.open(path, read_only=True)
    except FormatError:
        # Without a superblock nothing is known of the store, and the findings say so.
        return findings, False
    with opened as store:
        findings += [
            Finding(
                "warning",
                f"lvol {table.lvol.name!r}",
                f"its {table.algorithm} checksums cannot be used: {table.problem}",
            )
            for table in unreadable_tables.unreadable_tables(store)
        ]
    return findings, True


def _repair(path: str, findings: list[Finding], *, give_up_damaged: bool) -> list[tuple[str, str]]:
    """(object, what was done), in order."""
    repairs = []
    if give_up_damaged:
        repairs += [
            (blob.title, f"removed with its data; {blob.damage}") for blob in remove_damaged(path)
        ]
    with Lvstore.open(path, force_replay=True) as store:
        repairs += store.repairs
        for table in list(unreadable_tables.unreadable_tables(store)):
            unreadable_tables.drop(table)
            repairs.append(
                (
                    f"lvol {table.lvol.name!r}",
                    f"dropped its {table.algorithm} checksums; register them again",
                )
            )
        damaged = bool(store.damaged)
    if any(finding.object == "masks" for finding in findings):
        repairs.append(("masks", "written anew"))
    if any(finding.object == "superblock" for finding in findings) and not damaged:
        repairs.append(("superblock", "marked as closed cleanly"))
    return repairs


def _print(
    store: str, findings: list[Finding], repairs: list[tuple[str, str]], *, consistent: bool
) -> None:
    for subject, text in repairs:
        output.say(f"repaired: {subject}: {text}")
    for finding in findings:
        output.say(f"{finding.severity}: {finding.object}: {finding.text}")
    if consistent:
        output.say(f"{store}: consistent" + (" after the repair" if repairs else ""))
