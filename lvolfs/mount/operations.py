"""What xattrs and ioctls start on an lvol, and how they name clusters and destinations."""

import errno
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from lvolfs.delta import checksums, copy, jobs
from lvolfs.delta.jobs import Job
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from lvolfs.mount.caller import check_sees_the_same
from lvolfs.mount.index import file_name

MOST_OPENING = 16
_opening = threading.BoundedSemaphore(MOST_OPENING)

CLUSTER_LIST = re.compile(r"\d{1,19}(-\d{1,19})?(,\d{1,19}(-\d{1,19})?)*")


def parse_clusters(text: str, lvol: Lvol) -> list[range]:
    """0-7,12 as ranges, checked against the lvol. OSError EINVAL, or ERANGE past its end."""
    if CLUSTER_LIST.fullmatch(text) is None:
        raise OSError(errno.EINVAL, f"{text!r} is not a list of clusters; write it as 0-7,12")
    ranges = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        ranges.append(range(int(first), int(last or first) + 1))
    check_clusters(ranges, lvol)
    return ranges


def check_clusters(ranges: Sequence[range], lvol: Lvol) -> None:
    for each in ranges:
        if not each:
            raise OSError(errno.EINVAL, f"cluster range {each.start}-{each.stop - 1} is empty")
        if each.stop > lvol.num_clusters:
            raise OSError(
                errno.ERANGE,
                f"cluster {each.stop - 1} is past the end of lvol '{lvol.name}', "
                f"which has {lvol.num_clusters}",
            )


def register_checksums(lvol: Lvol, clusters: list[range] | None, algorithm: str) -> Job:
    """Starts a registration; None = all clusters."""
    if algorithm not in ("xxh3", "crc64"):
        raise OSError(errno.EINVAL, f"checksum algorithm {algorithm!r}: there are xxh3 and crc64")
    return checksums.register(lvol, clusters=clusters, algorithm=algorithm)


def find_destination(store: Lvstore, mountpoint: str, text: str) -> Lvol | str:
    """The lvol, or the path or URI, that a copy's destination names.

    A path below this very mount stands for its lvol: the daemon does not open its own files.
    """
    if "://" in text or text.startswith("nbd+unix:"):
        return text
    if text.startswith("/"):
        own = Path(mountpoint, "volumes")
        path = Path(text)
        if path.parent == own:
            for lvol in store.volumes:
                if file_name(lvol.name).decode(errors="surrogateescape") == path.name:
                    return lvol
            raise OSError(errno.ENOENT, f"there is no volume {path.name!r} to copy to")
        return text
    return store.get(text)


def start_copy(
    lvol: Lvol,
    mountpoint: str,
    destination: str,
    clusters: list[range] | None,
    *,
    deep: bool,
    pid: int,
) -> Job:
    """Starts a shallow copy of all own clusters (None), of some, or a deep copy, for a process."""
    if not destination:
        raise OSError(errno.EINVAL, "a copy needs a destination: a name, an absolute path, a URI")
    target = find_destination(lvol.store, mountpoint, destination)
    if not isinstance(target, str):
        return copy.shallow_copy(lvol, target, clusters=clusters, deep=deep)
    check_sees_the_same(pid, f"destination {target!r}")
    # Each may wait for a server or file system that hangs, and holds one of the mount's threads.
    if not _opening.acquire(blocking=False):
        # Not EAGAIN, which the kernel makes "not supported" of when an xattr is set.
        raise OSError(errno.EBUSY, f"{MOST_OPENING} copies wait for their destinations: try again")
    try:
        return copy.shallow_copy(lvol, target, clusters=clusters, deep=deep)
    finally:
        _opening.release()


def latest_job(lvol: Lvol, kind: str) -> Job | None:
    """The last job of a kind that had this lvol as its source."""
    found = None
    for job in jobs.registry(lvol.store).list():
        if job.kind == kind and job.lvol_uuid == lvol.uuid:
            found = job
    return found


def find_copy(store: Lvstore, job_id: int) -> Job:
    """A copy by its id; OSError(ENOENT)."""
    for job in jobs.registry(store).list():
        if job.id == job_id and job.kind == "copy":
            return job
    raise OSError(errno.ENOENT, f"store '{store.name}' knows no copy {job_id}")


def cancel_latest(lvol: Lvol, kind: str) -> None:
    """Cancels what is under way; OSError(ENODATA) when nothing is."""
    job = jobs.registry(lvol.store).active(kind, lvol.uuid)  # type: ignore[arg-type]
    if job is None:
        raise OSError(errno.ENODATA, f"no {kind} of lvol '{lvol.name}' is under way")
    job.cancel()
