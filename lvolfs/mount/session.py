"""One mounted store, from the mount to the clean end."""

import contextlib
import ctypes
import errno
import logging
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pyfuse3
import trio
from prometheus_client.registry import Collector

from lvolfs._native.lane import Lane
from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import mountpoint as mounts
from lvolfs.mount.control_channel import ControlChannel
from lvolfs.mount.invalidation import Invalidator
from lvolfs.mount.metrics import LaneCollector
from lvolfs.mount.options import MountOptions
from lvolfs.mount.status_files import StatusFiles
from lvolfs.mount.tree import Tree
from lvolfs.report.metrics import StoreCollector, metrics_text

_log = logging.getLogger(__name__)


def prepare_mountpoint(mountpoint: str, *, allow_other: bool = False) -> str:
    """The absolute path of an empty mount point; a stale mount of ours is taken away.

    Raises OSError: ENOENT, ENOTDIR, EBUSY when something is mounted there, EACCES or EPERM
    for what an ordinary user may not do, which fusermount3 would refuse in its own words.
    """
    where = mounts.absolute(mountpoint)
    if mounts.replace_stale(where):
        _log.warning("replaced a stale mount on %s: its daemon was gone", where)
    mount = mounts.find(where)
    if mount is not None:
        raise OSError(
            errno.EBUSY,
            f"store '{mount.store}' is mounted on '{mountpoint}' already; "
            f"run: lvolfs umount {mountpoint}",
        )
    try:
        status = os.stat(where)  # noqa: PTH116
    except FileNotFoundError:
        raise OSError(
            errno.ENOENT, f"mount point '{mountpoint}' does not exist; make the directory"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.ENOTDIR, f"mount point '{mountpoint}' is not a directory")
    if not Path("/dev/fuse").exists():
        raise OSError(errno.ENODEV, "there is no /dev/fuse; load the fuse module")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise OSError(
            errno.EACCES,
            f"uid {os.getuid()} may not open /dev/fuse; let root run: chmod 666 /dev/fuse",
        )
    if os.geteuid() != 0:
        if not os.access(where, os.W_OK):
            raise OSError(
                errno.EACCES,
                f"uid {os.getuid()} may not write to mount point '{mountpoint}'; "
                "mount on a directory of yours",
            )
        if allow_other and not _users_may_allow_other():
            raise OSError(
                errno.EPERM,
                "the option allow_other is root's, unless /etc/fuse.conf says user_allow_other",
            )
    return where


def _users_may_allow_other() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


class Session:
    """A mounted store. The store stays open when the session ends. One at a time per process:
    pyfuse3 has no more."""

    def __init__(self, store: Lvstore, mountpoint: str, options: MountOptions) -> None:
        self.store = store
        self.mountpoint = prepare_mountpoint(mountpoint, allow_other=options.allow_other)
        self._mounted = False
        self.lane = Lane(
            self.mountpoint,
            options.for_fuse(store.path, read_only=options.read_only or store.read_only),
            threads=options.threads,
            max_background=options.max_background,
            page_cache=options.page_cache,
            io_uring=options.transport == "uring",
        )
        self._mounted = True
        self._needs_io_uring = options.transport == "uring"
        self._ending = contextlib.ExitStack()
        try:
            self._begin(options)
        except BaseException:
            self.close()
            raise

    def _begin(self, options: MountOptions) -> None:
        """Whatever is begun here is ended in reverse order by close()."""
        self.collectors: list[Collector] = [StoreCollector(self.store), LaneCollector(self.lane)]
        status_files = StatusFiles(
            self.store, self.mountpoint, lambda: metrics_text(self.collectors)
        )
        self.tree = Tree(
            self.store, self.lane, self.mountpoint, status_files, shared=options.allow_other
        )
        invalidator = Invalidator(self.lane, self.tree.index)
        invalidator.start()
        self._ending.callback(invalidator.stop)
        self._ending.callback(self.tree.close_all)
        self._ending.callback(self.lane.stop)
        pyfuse3.init(self.tree, self.lane.hand_over(), set())
        self._ending.callback(pyfuse3.close, unmount=False)
        for callback in (invalidator.on_event, self.tree.on_event):
            self.store.events.append(callback)
            self._ending.callback(self.store.events.remove, callback)
        self.lane.start()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until the store is unmounted or end() is called; has started when it answers."""
        async with trio.open_nursery() as nursery:
            self._stop = nursery.cancel_scope.cancel
            nursery.start_soon(pyfuse3.main)
            nursery.start_soon(self._serve_control)
            # The first answer proves that the kernel and we agree.
            await trio.to_thread.run_sync(os.stat, self.mountpoint, abandon_on_cancel=True)
            self._check_transport()
            _log.info("store %s is mounted on %s", self.store.path, self.mountpoint)
            task_status.started()

    def _check_transport(self) -> None:
        if self.lane.negotiated()["io_uring"]:
            _log.info("%s: requests come through io_uring", self.mountpoint)
        elif self._needs_io_uring:
            raise OSError(
                errno.EOPNOTSUPP,
                f"cannot mount on '{self.mountpoint}' with transport=uring: the kernel (6.14 or "
                "newer) offers FUSE over io_uring when root has written Y to "
                "/sys/module/fuse/parameters/enable_uring",
            )

    async def _serve_control(self) -> None:
        await ControlChannel(self.lane, self.tree).serve()
        _log.info("%s was unmounted", self.mountpoint)
        self._mounted = False
        pyfuse3.terminate()
        self._stop()

    async def end(self) -> None:
        """Takes the mount away, whoever uses it, while it is being served."""
        gone = await trio.to_thread.run_sync(self._unmount, abandon_on_cancel=True)
        if not gone and self._mounted:
            # The connection would live on with its users: end it from this side.
            self._mounted = False
            pyfuse3.terminate()
            self._stop()

    def _unmount(self) -> bool:
        """Takes the mount away, after the kernel has written back what it still has. False
        when it was busy: its users get errors from now on. Needs to be served meanwhile."""
        try:
            _sync_file_system(self.mountpoint)
            mounts.detach(self.mountpoint, lazy=False)
        except OSError as error:
            reason = mounts.busy_error(self.mountpoint) if error.errno == errno.EBUSY else error
            _log.warning("detaching it all the same: %s", reason.strerror)
            with contextlib.suppress(OSError):
                mounts.detach(self.mountpoint, lazy=True)
            return False
        return True

    def close(self) -> None:
        """Ends the lane; the mount is gone, or answers ENOTCONN from now on."""
        if self._mounted:
            with contextlib.suppress(OSError):
                mounts.detach(self.mountpoint, lazy=True)
            self._mounted = False
        self._ending.close()
        self.lane.stop()


def _sync_file_system(path: str) -> None:
    """syncfs(2): dirty pages of shared mappings reach us as writes."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot sync '{path}': {os.strerror(code)}")
    finally:
        os.close(descriptor)


async def _run(session: Session, on_ready: Callable[[], None] | None) -> None:
    """Serves a mount until it is gone, or SIGINT or SIGTERM comes."""

    async def end_on_signal() -> None:
        async for number in signals:
            _log.info("%s: unmounting %s", signal.Signals(number).name, session.mountpoint)
            await session.end()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal)
            async with trio.open_nursery() as serving:
                await serving.start(session.run)
                if on_ready is not None:
                    on_ready()
            nursery.cancel_scope.cancel()


def serve_mount(
    store: Lvstore,
    mountpoint: str,
    options: MountOptions | None = None,
    *,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Mounts a store, serves it until it is unmounted or SIGINT or SIGTERM comes, closes it.

    To be called in the main thread of a process that does nothing else; afterwards the store
    is marked clean. on_ready is called once the mount answers. Raises OSError when it cannot be
    mounted or the store cannot be closed cleanly.
    """
    try:
        session = Session(store, mountpoint, options or MountOptions())
        try:
            trio.run(_run, session, on_ready)
        finally:
            session.close()
    finally:
        store.close()
