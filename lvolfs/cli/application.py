"""The verbs and where they are."""

from importlib import import_module
from typing import Annotated, Final

import typer

from lvolfs import __version__
from lvolfs.cli import listening, opening, output

VERBS: Final = {
    "create": "store_commands.create",
    "mount": "mount_commands.mount",
    "umount": "mount_commands.umount",
    "serve": "serve_command.serve",
    "info": "store_commands.info",
    "ls": "store_commands.ls",
    "volume": "volume_commands.app",
    "snapshot": "volume_commands.snapshot",
    "clone": "volume_commands.clone",
    "checksum": "checksum_commands.app",
    "diff": "copy_commands.diff",
    "copy": "copy_commands.copy",
    "jobs": "job_commands.jobs",
    "rebuild": "rebuild_command.rebuild",
    "check": "check_command.check",
    "scrub": "scrub_command.scrub",
    "map": "map_command.show_map",
}
"""In the order of the help."""


def _print_version(wanted: bool) -> None:
    if wanted:
        output.say(f"lvolfs {__version__}")
        raise typer.Exit


def _print_include_dir(wanted: bool) -> None:
    if wanted:
        from lvolfs import ioctls

        output.say(str(ioctls.include_directory()))
        raise typer.Exit


def root(
    *,
    rpc_socket: Annotated[
        str | None,
        typer.Option(metavar="PATH|tls://HOST:PORT", help="Talk to the daemon behind this socket."),
    ] = None,
    rpc_tls_cert: listening.TlsCert = None,
    rpc_tls_key: listening.TlsKey = None,
    rpc_tls_ca: listening.TlsCa = None,
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
    opening.credentials = listening.parse_credentials(rpc_tls_cert, rpc_tls_key, rpc_tls_ca)
    opening.external_snapshots = {}
    opening.external_snapshots = opening.parse_external_snapshots(external_snapshot)


def make_app(verb: str | None = None) -> typer.Typer:
    """The command line. Of a `verb` that there is only its own module is imported, which takes
    a good part of the time of a short command."""
    app = typer.Typer(
        name="lvolfs",
        help="SPDK logical volume stores as files: mount, snapshot, checksum, copy, rebuild.",
        epilog=(
            "TARGET is a store's path or the mount point of a mounted store. LVOL is a name, a "
            "uuid or lvs/name. Sizes take K, M, G, T (powers of 1024). Exit status: 0 done, "
            "1 failed, 2 wrong usage, 3 the data do not match."
        ),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for name in [verb] if verb in VERBS else VERBS:
        module, _, attribute = VERBS[name].partition(".")
        found = getattr(import_module(f"lvolfs.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app
