"""mount and umount."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lvolfs.cli import daemon, opening, output
from lvolfs.cli.explanation import explain
from lvolfs.cli.failure import CommandFailedError
from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import mountpoint as mounts
from lvolfs.mount.options import MountOptions
from lvolfs.rpc import registry
from lvolfs.rpc.target import Target

_log = logging.getLogger(__name__)


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
    external_snapshot: opening.ExternalSnapshots = None,
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Log there and not to syslog.")
    ] = None,
) -> None:
    """Mount a store; goes into the background when the mount answers."""
    parsed = MountOptions.parse(options)
    externals = opening.parse_external_snapshots(external_snapshot)
    path = os.path.abspath(store)  # noqa: PTH100
    where = mounts.absolute(mountpoint)
    extra = os.path.abspath(rpc_socket) if rpc_socket is not None else None  # noqa: PTH100
    _refuse_mounted(path)

    def serve(on_ready: Callable[[], None]) -> None:
        _serve(path, where, parsed, externals=externals, rpc_socket=extra, on_ready=on_ready)

    if foreground:
        daemon.log_to_stderr()
        serve(lambda: output.note(f"{path} is mounted on {where}"))
        return
    if log is not None:
        daemon.check_log_file(log)
    fallback = str(registry.runtime_directory() / f"{registry.store_key(path)}.log")
    status, message = daemon.in_background(
        serve, describe=explain, log_file=log, fallback_log=fallback
    )
    if status:
        raise CommandFailedError(message)


def _refuse_mounted(path: str) -> None:
    entry = registry.find_by_store(path) if Path(path).exists() else None
    if entry is not None and entry.mountpoint is None:
        raise CommandFailedError(
            f"{path} is served by process {entry.pid} without a mount; end that first: "
            f"kill {entry.pid}"
        )
    if entry is not None:
        raise CommandFailedError(
            f"{path} is mounted already, at {entry.mountpoint} (pid {entry.pid}); "
            f"run: lvolfs umount {entry.mountpoint}"
        )


def _serve(
    path: str,
    where: str,
    options: MountOptions,
    *,
    externals: dict[str, str],
    rpc_socket: str | None,
    on_ready: Callable[[], None],
) -> None:
    """Opens the store and serves it until it is unmounted."""
    # Only a daemon needs these; every command would wait for them.
    import trio

    from lvolfs.mount.session import serve_mount
    from lvolfs.rpc import methods  # fills the method table
    from lvolfs.rpc.server import serve as serve_rpc

    assert methods
    store = Lvstore.open(path, read_only=options.read_only, external_snapshots=externals)
    for damaged in store.damaged:
        label = damaged.name or f"blob {damaged.blob_id:#x}"
        _log.warning("%s is damaged and not shown: %s", label, damaged.reason)
    socket = registry.socket_path(path)
    sockets = [socket] if rpc_socket is None else [socket, rpc_socket]
    target = Target([store], {store.path: where})

    async def rpc(
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_rpc, target, sockets)
            entry = registry.publish(path, where, socket)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                entry.unlink(missing_ok=True)

    try:
        serve_mount(store, where, options, on_ready=on_ready, tasks=[rpc])
    finally:
        target.close()  # what was opened by JSON-RPC beside the mounted store


def umount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT")],
    *,
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Take it away even though it is in use.")
    ] = False,
) -> None:
    """Unmount a store and wait until it is closed; says who holds it if it is busy."""
    entry = registry.find_by_mountpoint(mountpoint)
    mounts.unmount(mountpoint, daemon_pid=entry.pid if entry is not None else None, lazy=lazy)
