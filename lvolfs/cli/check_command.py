"""check: is the metadata in order, and what can be put right without guessing."""

from contextlib import closing
from typing import Annotated, Any

import typer

from lvolfs.cli import arguments, opening, output
from lvolfs.cli.failure import MISMATCH
from lvolfs.rpc import methods  # fills the method table
from lvolfs.rpc.client import Caller, LocalCaller
from lvolfs.rpc.target import Target

assert methods


def check(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, mounted or not.")],
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
    """Check the metadata of a store; 3 if something is wrong. One that is mounted or served is
    checked while it is used, and cannot be repaired."""
    if give_up_damaged and not repair:
        raise typer.BadParameter("--remove-damaged needs --repair, too")
    where = opening.find_daemon(store)
    caller: Caller = LocalCaller(Target([])) if where is None else opening.connect(where)
    with closing(caller):
        report = caller.call(
            "lvolfs_check",
            repair=repair,
            remove_damaged=give_up_damaged,
            **({"path": store} if where is None else {}),
        )
    if json:
        output.print_json(report)
    else:
        _print(store, report)
    if not report["consistent"]:
        raise typer.Exit(MISMATCH)


def _print(store: str, report: dict[str, Any]) -> None:
    for repair in report["repairs"]:
        output.say(f"repaired: {repair['object']}: {repair['text']}")
    for finding in report["findings"]:
        output.say(f"{finding['severity']}: {finding['object']}: {finding['text']}")
    if report["consistent"]:
        output.say(f"{store}: consistent" + (" after the repair" if report["repaired"] else ""))
