"""serve: the daemon without a mount."""

import errno
import os
from collections.abc import Callable
from typing import Annotated

import typer

from lvolfs.cli import daemon, listening, opening, output
from lvolfs.cli.explanation import explain
from lvolfs.cli.stores_daemon import Daemon, open_store
from lvolfs.rpc import registry
from lvolfs.rpc.target import Target

DEFAULT_SOCKET = "/var/tmp/spdk.sock"


def serve(
    stores: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE]...", help="Stores' files or devices.")
    ] = None,
    *,
    rpc_socket: Annotated[
        str, typer.Option("--rpc-socket", "-r", metavar="PATH", help="Listen for JSON-RPC there.")
    ] = DEFAULT_SOCKET,
    rpc_group: listening.RpcGroup = None,
    rpc_tcp: listening.RpcTcp = None,
    rpc_tls_cert: listening.TlsCert = None,
    rpc_tls_key: listening.TlsKey = None,
    rpc_tls_ca: listening.TlsCa = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to stderr.")
    ] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Change nothing.")] = False,
    external_snapshot: opening.ExternalSnapshots = None,
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Log there and not to syslog.")
    ] = None,
) -> None:
    """Serve stores by JSON-RPC, without a mount; in the background once the socket answers."""
    paths = [os.path.abspath(store) for store in stores or []]  # noqa: PTH100
    externals = opening.parse_external_snapshots(external_snapshot)
    asked = listening.parse_listening(
        rpc_socket, rpc_group, rpc_tcp, (rpc_tls_cert, rpc_tls_key, rpc_tls_ca)
    )

    def run(on_ready: Callable[[], None]) -> None:
        def ready(addresses: list[tuple[str, int]]) -> None:
            if foreground:
                places = [str(asked.socket), *(f"{host}:{port}" for host, port in addresses)]
                output.note(f"listening on {', '.join(places)}")
            on_ready()

        target = Target([])
        try:
            for path in paths:
                _add(target, path, read_only=read_only, externals=externals)
            Daemon(target, asked).run(ready)
        finally:
            target.close()

    daemon.start(
        run,
        foreground=foreground,
        describe=explain,
        log_file=log,
        fallback_log=str(registry.runtime_directory() / f"serve-{os.getpid()}.log"),
    )


def _add(target: Target, path: str, *, read_only: bool, externals: dict[str, str]) -> None:
    store = open_store(path, read_only=read_only, externals=externals)
    if any(other.name == store.name for other in target.stores):
        store.close()
        raise OSError(
            errno.EEXIST,
            f"{path}: another store given is named '{store.name}', too; serve them separately",
        )
    target.add_store(store)
