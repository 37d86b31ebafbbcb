"""mount and umount."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lvolfs.cli import daemon, listening, opening, output
from lvolfs.cli.explanation import explain
from lvolfs.cli.failure import CommandFailedError
from lvolfs.cli.stores_daemon import Daemon, open_store
from lvolfs.mount import mountpoint as mounts
from lvolfs.mount.options import MountOptions
from lvolfs.rpc import registry
from lvolfs.rpc.client import Client
from lvolfs.rpc.target import Target


def mount(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store's file or device.")],
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="A directory.")],
    *,
    options: Annotated[
        str, typer.Option("-o", metavar="OPTIONS", help="ro,allow_other,threads=N,...")
    ] = "",
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to stderr.")
    ] = False,
    rpc_socket: Annotated[
        str | None, typer.Option(metavar="PATH", help="Listen for JSON-RPC there, too.")
    ] = None,
    rpc_group: listening.RpcGroup = None,
    rpc_tcp: listening.RpcTcp = None,
    rpc_tls_cert: listening.TlsCert = None,
    rpc_tls_key: listening.TlsKey = None,
    rpc_tls_ca: listening.TlsCa = None,
    external_snapshot: opening.ExternalSnapshots = None,
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Log there and not to syslog.")
    ] = None,
) -> None:
    """Mount a store; goes into the background when the mount answers. A store that
    `lvolfs serve` has open is mounted by that process."""
    parsed = MountOptions.parse(options)
    externals = opening.parse_external_snapshots(external_snapshot)
    path = os.path.abspath(store)  # noqa: PTH100
    where = mounts.absolute(mountpoint)
    asked = listening.parse_listening(
        rpc_socket, rpc_group, rpc_tcp, (rpc_tls_cert, rpc_tls_key, rpc_tls_ca)
    )
    entry = registry.find_by_store(path) if Path(path).exists() else None
    if entry is not None:
        if foreground or log is not None or external_snapshot or not asked.is_default:
            _refuse_own_process(path, entry)
        _mount_by_daemon(path, where, options, entry)
        return

    def serve(on_ready: Callable[[], None]) -> None:
        def ready(_addresses: list[tuple[str, int]]) -> None:
            if foreground:
                output.note(f"{path} is mounted on {where}")
            on_ready()

        opened = open_store(path, read_only=parsed.read_only, externals=externals)
        target = Target([opened])
        try:
            Daemon(target, asked, ends_with_mount=True).run(ready, (where, options))
        finally:
            target.close()  # with what was opened by JSON-RPC beside the mounted store

    daemon.start(
        serve,
        foreground=foreground,
        describe=explain,
        log_file=log,
        fallback_log=str(registry.runtime_directory() / f"{registry.store_key(path)}.log"),
    )


def _refuse_mounted(path: str, entry: registry.Entry) -> None:
    if entry.mountpoint is not None:
        raise CommandFailedError(
            f"{path} is mounted already, at {entry.mountpoint} (pid {entry.pid}); "
            f"run: lvolfs umount {entry.mountpoint}"
        )


def _refuse_own_process(path: str, entry: registry.Entry) -> None:
    _refuse_mounted(path, entry)
    raise CommandFailedError(
        f"{path} is served by process {entry.pid}, which would mount it: leave out what only a "
        f"process of its own can do, or end that one first: kill {entry.pid}"
    )


def _mount_by_daemon(path: str, where: str, options: str, entry: registry.Entry) -> None:
    _refuse_mounted(path, entry)
    with Client(entry.socket) as client:
        client.call("lvolfs_mount", mountpoint=where, options=options)


def umount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT")],
    *,
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Take it away even though it is in use.")
    ] = False,
) -> None:
    """Unmount a store and wait until it is closed; says who holds it if it is busy."""
    entry = registry.find_by_mountpoint(mountpoint)
    if entry is not None and entry.outlives_mount and not mounts.is_stale(mountpoint):
        with Client(entry.socket) as client:
            client.call("lvolfs_unmount", mountpoint=mounts.absolute(mountpoint), lazy=lazy)
        return
    mounts.unmount(mountpoint, daemon_pid=entry.pid if entry is not None else None, lazy=lazy)
