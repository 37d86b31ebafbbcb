"""serve: the daemon without a mount."""

import errno
import grp
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lvolfs.cli import daemon, opening, output
from lvolfs.cli.explanation import explain
from lvolfs.cli.failure import CommandFailedError
from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import registry
from lvolfs.rpc.target import Target

if TYPE_CHECKING:
    import trio

DEFAULT_SOCKET = "/var/tmp/spdk.sock"

_log = logging.getLogger(__name__)


def serve(
    stores: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE]...", help="Stores' files or devices.")
    ] = None,
    *,
    rpc_socket: Annotated[
        str, typer.Option("--rpc-socket", "-r", metavar="PATH", help="Listen for JSON-RPC there.")
    ] = DEFAULT_SOCKET,
    rpc_group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Let processes of this group in, too (mode 0660)."),
    ] = None,
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
    socket = os.path.abspath(rpc_socket)  # noqa: PTH100
    group = None if rpc_group is None else _group_id(rpc_group)

    def run(on_ready: Callable[[], None]) -> None:
        target = Target([])
        try:
            for path in paths:
                _open(target, path, read_only=read_only, externals=externals)
            Daemon(target, socket, group).run(on_ready)
        finally:
            target.close()

    if foreground:
        daemon.log_to_stderr()
        run(lambda: output.note(f"listening on {socket}"))
        return
    if log is not None:
        daemon.check_log_file(log)
    fallback = str(registry.runtime_directory() / f"serve-{os.getpid()}.log")
    status, message = daemon.in_background(
        run, describe=explain, log_file=log, fallback_log=fallback
    )
    if status:
        raise CommandFailedError(message)


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise CommandFailedError(f"there is no group {name!r}; see: getent group") from None


def _open(target: Target, path: str, *, read_only: bool, externals: dict[str, str]) -> None:
    store = Lvstore.open(path, read_only=read_only, external_snapshots=externals)
    if any(other.name == store.name for other in target.stores):
        store.close()
        raise OSError(
            errno.EEXIST,
            f"{path}: another store given is named '{store.name}', too; serve them separately",
        )
    for damaged in store.damaged:
        label = damaged.name or f"blob {damaged.blob_id:#x}"
        _log.warning("%s is damaged and not shown: %s", label, damaged.reason)
    target.add_store(store)


class Daemon:
    """The sockets of a target: one for all of it, and one for each store in the registry,
    so that a store's path is enough to find and to mean it."""

    def __init__(self, target: Target, socket: str, group: int | None) -> None:
        self._target = target
        self._socket = socket
        self._group = group
        self._published: dict[str, trio.CancelScope] = {}

    def run(self, on_ready: Callable[[], None]) -> None:
        """Until SIGINT or SIGTERM."""
        import trio

        trio.run(self._main, on_ready)

    async def _main(self, on_ready: Callable[[], None]) -> None:
        import signal

        import trio

        from lvolfs.rpc import methods  # fills the method table
        from lvolfs.rpc.server import serve as serve_target

        assert methods
        listen = partial(serve_target, self._target, [self._socket], group=self._group)
        async with trio.open_nursery() as self._nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await self._nursery.start(listen)
                for store in self._target.stores:
                    await self._publish(store)
                self._target.on_opened.append(self._opened)
                self._target.on_closed.append(self._closed)
                _log.info("listening on %s", self._socket)
                on_ready()
                async for number in signals:
                    _log.info("%s: ending", signal.Signals(number).name)
                    break
            self._nursery.cancel_scope.cancel()

    async def _publish(self, store: Lvstore) -> None:
        # Memory has no path by which others could mean it.
        if not store.path.startswith("/proc/"):
            await self._nursery.start(self._serve_store, store)

    async def _serve_store(self, store: Lvstore, task_status: "trio.TaskStatus[None]") -> None:
        import trio

        from lvolfs.rpc.server import serve as serve_target

        socket = registry.socket_path(store.path)
        with trio.CancelScope() as scope, ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_target, self._target.seen_from(store), [socket])
                entry = registry.publish(store.path, None, socket)
                stack.callback(entry.unlink, missing_ok=True)
                self._published[store.path] = scope
                stack.callback(self._published.pop, store.path, None)
                task_status.started()

    def _opened(self, store: Lvstore) -> None:
        """Called in the thread of the method that opened it."""
        import trio

        trio.from_thread.run(self._publish, store)

    def _closed(self, store: Lvstore) -> None:
        import trio

        scope = self._published.get(store.path)
        if scope is not None:
            trio.from_thread.run_sync(scope.cancel)
