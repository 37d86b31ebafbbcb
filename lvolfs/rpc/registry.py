"""Which daemon holds which store: one small JSON file per open store in a private directory.

A store is known by the device and inode of its file, or by the device number of its block
device, so that any path to it finds the daemon. An entry whose process is gone (by pid and
start time) is removed when it is met.
"""

import contextlib
import errno
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from lvolfs import __version__


@dataclass(frozen=True)
class Entry:
    """outlives_mount: the process goes on when the store is unmounted."""

    store: str
    mountpoint: str | None
    socket: str
    pid: int
    started: int
    version: str = __version__
    outlives_mount: bool = False


def runtime_directory() -> Path:
    """/run/lvolfs for root, else below XDG_RUNTIME_DIR or /tmp. Created with mode 0700."""
    override = os.environ.get("LVOLFS_RUNTIME_DIR")
    uid = os.geteuid()
    if override:
        directory = Path(override)
    elif uid == 0:
        directory = Path("/run/lvolfs")
    elif "XDG_RUNTIME_DIR" in os.environ:
        directory = Path(os.environ["XDG_RUNTIME_DIR"], "lvolfs")
    else:
        directory = Path(f"/tmp/lvolfs-{uid}")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"runtime directory {directory}: {os.strerror(error.errno or errno.EIO)}; "
            "set LVOLFS_RUNTIME_DIR to a directory of yours",
        ) from error
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise OSError(
            errno.EPERM,
            f"runtime directory {directory} must be a directory of uid {uid} with mode 0700; "
            "remove it, or set LVOLFS_RUNTIME_DIR to another one",
        )
    return directory


def store_key(path: str) -> str:
    """The name of a store's entry. Raises OSError for a path that does not exist."""
    status = Path(path).stat()
    if stat.S_ISBLK(status.st_mode):
        return f"block-{os.major(status.st_rdev)}-{os.minor(status.st_rdev)}"
    return f"file-{status.st_dev}-{status.st_ino}"


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is none, or if it has
    ended and only nobody has waited for it: in a container that may stay so for ever."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name may contain anything; what follows its last parenthesis is fixed.
    state, *fields = text.rpartition(")")[2].split()
    # The first thread may be a zombie while others still have everything open.
    ended = state in {"Z", "X"} and int(fields[16]) <= 1
    return None if ended else int(fields[18])


def socket_path(store_path: str) -> str:
    """Where the daemon of a store listens, unless told otherwise."""
    return str(runtime_directory() / f"{store_key(store_path)}.sock")


def publish(
    store_path: str, mountpoint: str | None, socket: str, *, outlives_mount: bool = False
) -> Path:
    """Writes the entry of a store that this process holds. Returns its file, to be removed."""
    pid = os.getpid()
    entry = Entry(
        store=str(Path(store_path).resolve()),
        mountpoint=mountpoint,
        socket=socket,
        pid=pid,
        started=process_start(pid) or 0,
        outlives_mount=outlives_mount,
    )
    file = runtime_directory() / f"{store_key(store_path)}.json"
    unfinished = file.with_suffix(f".{pid}")
    unfinished.write_text(json.dumps(asdict(entry), indent=2) + "\n")
    unfinished.replace(file)
    return file


def _read(file: Path) -> Entry | None:
    """The entry in a file; None if it is gone, or stale, in which case it is removed."""
    try:
        fields = json.loads(file.read_text())
        entry = Entry(**fields)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return None
    if process_start(entry.pid) != entry.started:
        with contextlib.suppress(OSError):
            file.unlink()
        return None
    return entry


def entries() -> list[Entry]:
    """Every store that a living daemon of this user holds."""
    found = (_read(file) for file in sorted(runtime_directory().glob("*.json")))
    return [entry for entry in found if entry is not None]


def find_by_store(path: str) -> Entry | None:
    """The daemon that holds the store at a path."""
    return _read(runtime_directory() / f"{store_key(path)}.json")


def find_by_mountpoint(path: str) -> Entry | None:
    """The daemon whose mount has its root at a path."""
    resolved = str(Path(path).resolve())
    for entry in entries():
        if entry.mountpoint == resolved:
            return entry
    return None
