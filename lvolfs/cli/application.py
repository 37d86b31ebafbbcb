"""The verbs and where they are."""

from typing import Annotated

import typer

from lvolfs import __version__
from lvolfs.cli import (
    check_command,
    checksum_commands,
    copy_commands,
    job_commands,
    map_command,
    mount_commands,
    opening,
    output,
    rebuild_command,
    scrub_command,
    serve_command,
    store_commands,
    volume_commands,
)

app = typer.Typer(
    name="lvolfs",
    help="SPDK logical volume stores as files: mount, snapshot, checksum, copy, rebuild.",
    epilog=(
        "TARGET is a store's path or the mount point of a mounted store. LVOL is a name, a uuid "
        "or lvs/name. Sizes take K, M, G, T (powers of 1024). Exit status: 0 done, 1 failed, "
        "2 wrong usage, 3 the data do not match."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.say(f"lvolfs {__version__}")
        raise typer.Exit


def _print_include_dir(wanted: bool) -> None:
    if wanted:
        from lvolfs import ioctls

        output.say(str(ioctls.include_directory()))
        raise typer.Exit


@app.callback()
def root(
    *,
    rpc_socket: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Talk to the daemon behind this socket."),
    ] = None,
    external_snapshot: opening.ExternalSnapshots = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    include_dir: Annotated[
        bool,
        typer.Option(
            "--include-dir",
            callback=_print_include_dir,
            is_eager=True,
            help="Print the folder of lvolfs.h.",
        ),
    ] = False,
) -> None:
    del version, include_dir  # their callbacks have acted
    opening.rpc_socket = rpc_socket
    opening.external_snapshots = {}
    opening.external_snapshots = opening.parse_external_snapshots(external_snapshot)


app.command("create")(store_commands.create)
app.command("mount")(mount_commands.mount)
app.command("umount")(mount_commands.umount)
app.command("serve")(serve_command.serve)
app.command("info")(store_commands.info)
app.command("ls")(store_commands.ls)
app.add_typer(volume_commands.app, name="volume")
app.command("snapshot")(volume_commands.snapshot)
app.command("clone")(volume_commands.clone)
app.add_typer(checksum_commands.app, name="checksum")
app.command("diff")(copy_commands.diff)
app.command("copy")(copy_commands.copy)
app.command("jobs")(job_commands.jobs)
app.command("rebuild")(rebuild_command.rebuild)
app.command("check")(check_command.check)
app.command("scrub")(scrub_command.scrub)
app.command("map")(map_command.show_map)
