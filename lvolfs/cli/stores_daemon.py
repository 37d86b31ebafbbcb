"""The process behind `mount` and `serve`: open stores, the sockets by which they are reached,
and the mount of one of them."""

import errno
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lvolfs.cli.explanation import explain, first_cause
from lvolfs.cli.listening import Listening
from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import registry
from lvolfs.rpc.target import Target

if TYPE_CHECKING:
    import trio
    from prometheus_client.registry import Collector

    from lvolfs.mount.session import Session

_log = logging.getLogger(__name__)

UNMOUNT_TIMEOUT = 60.0


def open_store(path: str, *, read_only: bool, externals: dict[str, str]) -> Lvstore:
    """Opens a store and logs what of it cannot be shown."""
    store = Lvstore.open(path, read_only=read_only, external_snapshots=externals)
    for damaged in store.damaged:
        label = damaged.name or f"blob {damaged.blob_id:#x}"
        _log.warning("%s is damaged and not shown: %s", label, damaged.reason)
    return store


def _as_os_error(group: BaseException) -> OSError:
    error = first_cause(group)
    number = error.errno if isinstance(error, OSError) else None
    return OSError(number or errno.EIO, explain(error))


class Daemon:
    """Serves a target: one socket for all of it, and one for each store in the registry, so
    that a store's path is enough to find and to mean it, however it was opened.

    ends_with_mount: the end of the mount is the end of the process. Is the target's Mounter.
    """

    def __init__(
        self, target: Target, listening: Listening, *, ends_with_mount: bool = False
    ) -> None:
        self._target = target
        self._listening = listening
        self._ends_with_mount = ends_with_mount
        self._published: dict[str, trio.CancelScope] = {}
        self._mounting = threading.Lock()
        self._session: Session | None = None
        self._session_gone = threading.Event()
        target.mounter = self

    def run(
        self,
        on_ready: Callable[[list[tuple[str, int]]], None],
        first_mount: tuple[str, str] | None = None,
    ) -> None:
        """Until SIGINT or SIGTERM. on_ready gets the addresses of TCP; first_mount: where, and
        with what options, the target's store is mounted before."""
        import trio

        trio.run(self._main, on_ready, first_mount)

    async def _main(
        self,
        on_ready: Callable[[list[tuple[str, int]]], None],
        first_mount: tuple[str, str] | None,
    ) -> None:
        import signal

        import trio

        from lvolfs.rpc import methods  # fills the method table
        from lvolfs.rpc.server import serve

        assert methods
        self._ended = trio.Event()
        asked = self._listening
        listen = partial(
            serve,
            self._target,
            [] if asked.socket is None else [asked.socket],
            group=asked.group,
            tls=asked.tls(),
        )
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as self._nursery:
                addresses = await self._nursery.start(listen)
                for store in self._target.stores:
                    await self._publish(store)
                self._target.on_opened.append(self._opened)
                self._target.on_closed.append(self._closed)
                if first_mount is not None:
                    (store,) = self._target.stores
                    await trio.to_thread.run_sync(self.mount, store, *first_mount)
                for host, port in addresses:
                    _log.info("listening on %s:%d with mutual TLS", host, port)
                on_ready(addresses)
                self._nursery.start_soon(self._end_on_signal, signals)
                await self._ended.wait()
                self._nursery.cancel_scope.cancel()

    async def _end_on_signal(self, signals: AsyncIterator[int]) -> None:
        import signal

        async for number in signals:
            _log.info("%s: ending", signal.Signals(number).name)
            if self._session is not None:
                await self._session.end()
            self._ended.set()

    # -- the stores' sockets

    async def _publish(self, store: Lvstore) -> None:
        # Memory has no path by which others could mean it.
        if not store.path.startswith("/proc/"):
            await self._nursery.start(self._serve_store, store)

    async def _serve_store(self, store: Lvstore, task_status: "trio.TaskStatus[None]") -> None:
        import trio

        from lvolfs.rpc.server import serve

        socket = registry.socket_path(store.path)
        with trio.CancelScope() as scope, ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, self._target.seen_from(store), [socket])
                entry = self._register(store)
                stack.callback(entry.unlink, missing_ok=True)
                self._published[store.path] = scope
                stack.callback(self._published.pop, store.path, None)
                task_status.started()

    def _register(self, store: Lvstore) -> Path:
        """Writes the store's entry in the registry, as it is now."""
        return registry.publish(
            store.path,
            self._target.mountpoints.get(store.path),
            registry.socket_path(store.path),
            outlives_mount=not self._ends_with_mount,
        )

    def _opened(self, store: Lvstore) -> None:
        """Called in the thread of the method that opened it."""
        import trio

        try:
            trio.from_thread.run(self._publish, store)
        except ExceptionGroup as group:
            raise _as_os_error(group) from group

    def _closed(self, store: Lvstore) -> None:
        import trio

        scope = self._published.get(store.path)
        if scope is not None:
            trio.from_thread.run_sync(scope.cancel)

    # -- the mount

    def mount(self, store: Lvstore, mountpoint: str, options: str) -> None:
        import trio

        from lvolfs.mount.options import MountOptions
        from lvolfs.mount.session import Session

        parsed = MountOptions.parse(options)
        with self._mounting:
            if self._session is not None:
                raise OSError(
                    errno.EBUSY,
                    f"this process has mounted {self._session.store.path} on "
                    f"{self._session.mountpoint}, and a process can have one mount; unmount it, "
                    "or mount the store by a process of its own",
                )
            self._session = session = Session(store, mountpoint, parsed)
            self._session_gone.clear()
            try:
                trio.from_thread.run(self._nursery.start, self._serve_mount, session)
            except ExceptionGroup as group:
                raise _as_os_error(group) from group

    async def _serve_mount(self, session: "Session", task_status: "trio.TaskStatus[None]") -> None:
        import trio

        store = session.store
        self._target.mountpoints[store.path] = session.mountpoint
        try:
            self._register(store)
            await session.run(task_status=task_status)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(session.close)
            del self._target.mountpoints[store.path]
            self._session = None
            if not self._ends_with_mount and store.path in self._published:
                self._register(store)
            self._session_gone.set()
            if self._ends_with_mount:
                self._ended.set()

    def unmount(self, mountpoint: str, *, lazy: bool) -> None:
        from lvolfs.mount import mountpoint as mounts

        where = mounts.absolute(mountpoint)
        session = self._session
        if session is None or session.mountpoint != where:
            raise OSError(errno.EINVAL, f"this process has mounted nothing on '{mountpoint}'")
        try:
            mounts.detach(where, lazy=lazy)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise mounts.busy_error(where) from error
            raise
        if not self._session_gone.wait(UNMOUNT_TIMEOUT):
            raise OSError(
                errno.ETIMEDOUT,
                f"'{mountpoint}' is unmounted, but still in use after {UNMOUNT_TIMEOUT:.0f} s",
            )

    def collectors(self, store: Lvstore) -> "list[Collector]":
        session = self._session
        return [] if session is None or session.store is not store else session.collectors
