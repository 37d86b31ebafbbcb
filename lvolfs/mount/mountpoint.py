"""Mount points: which ones are ours, who keeps one busy, how they go away."""

import ctypes
import errno
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FSTYPE = "fuse.lvolfs"

_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """One of our lines in /proc/self/mountinfo."""

    mountpoint: str
    store: str


@dataclass(frozen=True)
class Holder:
    """Who uses something below a mount point: a process, a loop device or another mount."""

    who: str
    path: str

    def __str__(self) -> str:
        return f"{self.who} ({self.path})"


def _unescape(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)


def _mountinfo() -> Iterator[tuple[str, str, str]]:
    """(mount point, type, source) of every mount, in mounting order."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, source = rest.split(" ")[:2]
        yield _unescape(fields.split(" ")[4]), kind, _unescape(source)


def absolute(path: str) -> str:
    """Without symbolic links in the directories above; the last part may be a dead mount."""
    where = Path(path)
    parent = Path(os.path.abspath(where)).parent  # noqa: PTH100
    name = Path(os.path.abspath(where)).name  # noqa: PTH100
    return str(parent.resolve() / name) if name else "/"


def find(mountpoint: str) -> Mount | None:
    """Our mount on top of a directory, None if something else or nothing is there."""
    top = None
    wanted = absolute(mountpoint)
    for where, kind, source in _mountinfo():
        if where == wanted:
            top = Mount(where, source) if kind == FSTYPE else None
    return top


def is_mounted(mountpoint: str) -> bool:
    """Whether anything at all is mounted on a directory."""
    wanted = absolute(mountpoint)
    return any(where == wanted for where, _, _ in _mountinfo())


def is_stale(mountpoint: str) -> bool:
    """Whether it is a mount of ours whose daemon is gone."""
    if find(mountpoint) is None:
        return False
    try:
        os.stat(mountpoint)  # noqa: PTH116
    except OSError as error:
        # Cancelled: on its way into a ring of the daemon, which has just died.
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED)
    return False


def detach(mountpoint: str, *, lazy: bool) -> None:
    """umount(2), or what fusermount3 does for ordinary users. OSError EBUSY, EPERM, EINVAL."""
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(mountpoint), _MNT_DETACH if lazy else 0):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot unmount '{mountpoint}': {os.strerror(code)}")
        return
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        text = done.stderr.strip() or "fusermount3 failed"
        code = errno.EBUSY if "busy" in text.lower() else errno.EPERM
        raise OSError(code, f"cannot unmount '{mountpoint}': {text}")


def replace_stale(mountpoint: str) -> bool:
    """Takes a stale mount of ours away. True if there was one."""
    if not is_stale(mountpoint):
        return False
    detach(mountpoint, lazy=True)
    return True


# -- who is in the way


def _below(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint + "/")


def _process_paths(process: Path) -> Iterator[str]:
    """Files that a process has open or mapped, and where it stands; what may be looked at."""
    for name in ("cwd", "root", "exe"):
        try:
            yield str((process / name).readlink())
        except OSError:
            continue
    try:
        for descriptor in (process / "fd").iterdir():
            try:
                yield str(descriptor.readlink())
            except OSError:
                continue
    except OSError:
        return
    try:
        maps = (process / "maps").read_text(errors="surrogateescape")
    except OSError:
        return
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            yield fields[5]


def holders(mountpoint: str) -> list[Holder]:
    """Processes, loop devices and mounts that use a mount, as far as this user may see."""
    where = absolute(mountpoint)
    found = []
    for process in sorted(
        (p for p in Path("/proc").iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)
    ):
        used = next((path for path in _process_paths(process) if _below(path, where)), None)
        if used is not None:
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                name = "?"
            found.append(Holder(f"process {process.name} {name}", used))
    for backing in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        try:
            path = backing.read_text().rstrip("\n")
        except OSError:
            continue
        if _below(path, where):
            found.append(Holder(f"/dev/{backing.parent.parent.name}", path))
    found += [
        Holder(f"mount of {source}", path)
        for path, _, source in _mountinfo()
        if path != where and _below(path, where)
    ]
    return found


def _describe(found: list[Holder]) -> str:
    if not found:
        return "by something that this user cannot see"
    text = ", ".join(str(holder) for holder in found[:5])
    return text + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def busy_error(mountpoint: str) -> OSError:
    return OSError(
        errno.EBUSY,
        f"'{mountpoint}' is in use by {_describe(holders(mountpoint))}; "
        "end that, then unmount again",
    )


# -- unmounting


def _wait_for_exit(pid: int, timeout: float) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(process)


def _wait_for_release(store: str, timeout: float) -> bool:
    """For a daemon whose pid is not known: until nobody holds the store's lock."""
    import fcntl

    deadline = time.monotonic() + timeout
    try:
        descriptor = os.open(store, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            else:
                return True
    finally:
        os.close(descriptor)


def unmount(
    mountpoint: str, *, daemon_pid: int | None = None, lazy: bool = False, timeout: float = 60.0
) -> None:
    """Unmounts, and waits until the daemon has closed the store.

    lazy: take it away even though it is busy. Raises OSError: EINVAL when no store is mounted
    there, EBUSY naming who uses it, ETIMEDOUT when the daemon does not end.
    """
    where = absolute(mountpoint)
    mount = find(where)
    if mount is None:
        raise OSError(errno.EINVAL, f"no lvolfs store is mounted on '{mountpoint}'")
    if replace_stale(where):
        return
    try:
        detach(where, lazy=lazy)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise busy_error(where) from error
        raise
    if daemon_pid is not None:
        gone = _wait_for_exit(daemon_pid, timeout)
    else:
        gone = _wait_for_release(mount.store, timeout)
    if not gone:
        raise OSError(
            errno.ETIMEDOUT,
            f"'{mountpoint}' is unmounted, but its daemon still holds '{mount.store}' "
            f"after {timeout:.0f} s",
        )
