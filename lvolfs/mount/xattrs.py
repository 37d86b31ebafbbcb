"""The virtual xattrs `user.lvolfs.*` of volumes and snapshots, and the ones SPDK keeps.

All values are text. Reading one that does not apply is ENODATA; `listxattr` names those that
have a value. Any other name in `user.` is an xattr in the lvol's own metadata.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from lvolfs.delta import checksums
from lvolfs.lvstore.lvol import Lvol
from lvolfs.mount import operations

PREFIX = "user.lvolfs."
USER = "user."


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _parent(lvol: Lvol) -> str:
    if lvol.parent is not None:
        return lvol.parent.name
    return lvol.external_id or ""


def _checksum(lvol: Lvol) -> str | None:
    table = checksums.table(lvol) if lvol.is_snapshot else None
    if table is None or table.snapshot_checksum is None:
        return None
    return f"{table.snapshot_checksum:016x}"


def _checksum_algorithm(lvol: Lvol) -> str | None:
    table = checksums.table(lvol) if lvol.is_snapshot else None
    return None if table is None else table.algorithm


def _checksum_state(lvol: Lvol) -> str | None:
    if not lvol.is_snapshot:
        return None
    job = operations.latest_job(lvol, "checksum")
    if job is not None and job.state != "complete":
        return job.state
    # What was registered in an earlier life of the store, or dropped since, decides.
    table = checksums.table(lvol)
    if table is None:
        return None
    return "complete" if table.snapshot_checksum is not None else "partial"


def _checksum_progress(lvol: Lvol) -> str | None:
    if not lvol.is_snapshot:
        return None
    job = operations.latest_job(lvol, "checksum")
    if job is not None and job.state == "in progress":
        return f"{job.done}/{job.total}"
    table = checksums.table(lvol)
    if table is None:
        return None
    return f"{table.num_registered}/{table.num_owned}"


def _copy_state(lvol: Lvol) -> str | None:
    job = operations.latest_job(lvol, "copy")
    return None if job is None else job.state


def _copy_progress(lvol: Lvol) -> str | None:
    job = operations.latest_job(lvol, "copy")
    return None if job is None else f"{job.done}/{job.total}"


def _copy_error(lvol: Lvol) -> str | None:
    job = operations.latest_job(lvol, "copy")
    return None if job is None else job.error


READABLE: dict[str, Callable[[Lvol], str | None]] = {
    "uuid": lambda lvol: lvol.uuid,
    "type": lambda lvol: "snapshot" if lvol.is_snapshot else "volume",
    "cluster_size": lambda lvol: str(lvol.store.cluster_size),
    "num_clusters": lambda lvol: str(lvol.num_clusters),
    "num_allocated_clusters": lambda lvol: str(lvol.num_allocated_clusters),
    "thin_provision": lambda lvol: _bool(lvol.is_thin),
    "parent": _parent,
    "children": lambda lvol: ",".join(sorted(child.name for child in lvol.children)),
    "read_only": lambda lvol: _bool(lvol.is_read_only or lvol.is_snapshot),
    "checksum": _checksum,
    "checksum.algorithm": _checksum_algorithm,
    "checksum.state": _checksum_state,
    "checksum.progress": _checksum_progress,
    "copy.state": _copy_state,
    "copy.progress": _copy_progress,
    "copy.error": _copy_error,
}


@dataclass(frozen=True)
class Request:
    """One setxattr on a writable name: the lvol, the text, where the store is mounted, and the
    process that asks."""

    lvol: Lvol
    text: str
    mountpoint: str
    pid: int


def _snapshot(request: Request) -> None:
    if request.lvol.is_snapshot:
        raise OSError(errno.EINVAL, f"'{request.lvol.name}' is a snapshot; clone it first")
    request.lvol.snapshot(request.text)


def _clone(request: Request) -> None:
    if not request.lvol.is_snapshot:
        raise OSError(errno.EINVAL, f"'{request.lvol.name}' is no snapshot; snapshot it first")
    request.lvol.clone(request.text)


def _register(request: Request) -> None:
    """`` (all), `0-7,12`, either followed by an algorithm."""
    lvol = request.lvol
    words = request.text.split()
    algorithm = "xxh3"
    if words and words[-1].isidentifier():
        algorithm = words.pop()
    if len(words) > 1:
        raise OSError(errno.EINVAL, f"{request.text!r}: give clusters and an algorithm at most")
    clusters = operations.parse_clusters(words[0], lvol) if words else None
    operations.register_checksums(lvol, clusters, algorithm)


def _stop(request: Request) -> None:
    operations.cancel_latest(request.lvol, "checksum")


def _copy_start(request: Request) -> None:
    """`DST` or `DST 0-7,12`; DST may contain spaces."""
    text = request.text.strip()
    destination, _, last = text.rpartition(" ")
    clusters = None
    if destination and operations.CLUSTER_LIST.fullmatch(last):
        clusters = operations.parse_clusters(last, request.lvol)
        text = destination.strip()
    operations.start_copy(
        request.lvol, request.mountpoint, text, clusters, deep=False, pid=request.pid
    )


def _copy_cancel(request: Request) -> None:
    operations.cancel_latest(request.lvol, "copy")


WRITABLE: dict[str, Callable[[Request], None]] = {
    "snapshot": _snapshot,
    "clone": _clone,
    "checksum.register": _register,
    "checksum.stop": _stop,
    "copy.start": _copy_start,
    "copy.cancel": _copy_cancel,
}


def _is_virtual(name: str) -> bool:
    return name.startswith(PREFIX)


def _stored_name(name: str) -> str:
    """What SPDK calls it; namespaces other than user. are not kept (ENOTSUP)."""
    if not name.startswith(USER) or name == USER:
        raise OSError(errno.ENOTSUP, f"xattr {name!r}: only names that begin with user. are kept")
    return name[len(USER) :]


def read(lvol: Lvol, raw_name: bytes) -> bytes:
    name = os.fsdecode(raw_name)
    if not _is_virtual(name):
        if not name.startswith(USER):
            raise OSError(errno.ENODATA, f"lvol '{lvol.name}' has no xattr {name!r}")
        return lvol.get_xattr(_stored_name(name))
    getter = READABLE.get(name[len(PREFIX) :])
    value = None if getter is None else getter(lvol)
    if value is None:
        raise OSError(errno.ENODATA, f"lvol '{lvol.name}' has no {name} now")
    return os.fsencode(value)


def names(lvol: Lvol) -> list[bytes]:
    found = [PREFIX + name for name, getter in READABLE.items() if getter(lvol) is not None]
    found += [USER + name for name in lvol.list_xattrs()]
    return [os.fsencode(name) for name in found]


def write(lvol: Lvol, raw_name: bytes, value: bytes, mountpoint: str, pid: int) -> None:
    name = os.fsdecode(raw_name)
    if not _is_virtual(name):
        lvol.set_xattr(_stored_name(name), value)
        return
    short = name[len(PREFIX) :]
    act = WRITABLE.get(short)
    if act is None:
        if short in READABLE:
            raise OSError(errno.EPERM, f"{name} can only be read")
        raise OSError(errno.EINVAL, f"there is no {name}; writable are {', '.join(WRITABLE)}")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EINVAL, f"the value of {name} is not UTF-8") from None
    # Programs that count the C string's NUL in are common.
    text = text.removesuffix("\0")
    if "\0" in text:
        raise OSError(errno.EINVAL, f"the value of {name} contains NUL")
    act(Request(lvol, text, mountpoint, pid))


def remove(lvol: Lvol, raw_name: bytes) -> None:
    name = os.fsdecode(raw_name)
    if _is_virtual(name):
        raise OSError(errno.EPERM, f"{name} cannot be removed")
    lvol.remove_xattr(_stored_name(name))
