"""Starting a rebuild, as a job or waiting for it."""

from __future__ import annotations

import errno
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lvolfs.delta.checksums import parse_algorithm
from lvolfs.delta.jobs import Job, JobRegistry, registry
from lvolfs.delta.rebuild_report import RebuildReport
from lvolfs.delta.rebuild_run import Rebuild
from lvolfs.delta.replica import LocalReplica, Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore

_POLL = 0.2
_active: set[tuple[str, str]] = set()
_active_lock = threading.Lock()


def rebuild(
    source: Lvol,
    destination: Lvstore,
    name: str | None = None,
    *,
    algorithm: str = "xxh3",
    register_missing: bool = True,
    verify: bool = True,
    rate: int = 0,
    progress: Callable[[Job], None] | None = None,
) -> RebuildReport:
    """Makes `name` on `destination` the same as `source`, with all its snapshots; waits.

    Without a name the volume is called as the source is.

    Snapshots of the destination with the name and checksum of the source's are kept; where
    both sides have per-cluster checksums only the clusters that differ are copied; otherwise
    all that the snapshot owns. register_missing: checksums are computed where it helps.
    verify: each copied snapshot, and the head, is read back and compared by checksum.
    rate: bytes per second, 0 = no limit. progress is called with the job while it runs.

    The source may be in use meanwhile; what was written before the call is in the rebuilt
    volume. An interrupted run is gone on with by calling again. OSError names what stands in
    the way; an existing volume `name` is replaced, and only at the end.
    """
    job = start_rebuild(
        source,
        destination,
        name if name is not None else source.name,
        algorithm=algorithm,
        register_missing=register_missing,
        verify=verify,
        rate=rate,
    )
    try:
        while not job.wait(_POLL):
            if progress is not None:
                progress(job)
    except BaseException:
        job.cancel()
        job.wait()
        raise
    if progress is not None:
        progress(job)
    job.raise_if_failed()
    if not isinstance(job.result, RebuildReport):
        raise OSError(errno.EIO, "the rebuild ended without a report")
    return job.result


def start_rebuild(
    source: Lvol,
    destination: Lvstore,
    name: str,
    *,
    algorithm: str = "xxh3",
    register_missing: bool = True,
    verify: bool = True,
    rate: int = 0,
) -> Job:
    """rebuild() as a job of both stores; its result is the RebuildReport."""
    job = start_replica_rebuild(
        LocalReplica(source.store),
        source.name,
        LocalReplica(destination),
        name,
        jobs=registry(destination),
        algorithm=algorithm,
        register_missing=register_missing,
        verify=verify,
        rate=rate,
        source_uuid=source.uuid,
    )
    registry(source.store).adopt(job)
    return job


def start_replica_rebuild(
    source: Replica,
    source_name: str,
    destination: Replica,
    name: str,
    *,
    jobs: JobRegistry,
    algorithm: str = "xxh3",
    register_missing: bool = True,
    verify: bool = True,
    rate: int = 0,
    source_uuid: str = "",
    held: ExitStack | None = None,
) -> Job:
    """start_rebuild() between any two replicas, as a job of `jobs`. `held` is closed when the
    job has ended, or at once if it cannot be started."""
    held = ExitStack() if held is None else held
    try:
        chosen = parse_algorithm(algorithm)
        _check_name(name)
        held.enter_context(_alone(destination.location, name))
        job = Job(
            "rebuild",
            lvol=source_name,
            lvol_uuid=source_uuid,
            destination=f"{destination.title}: {name}",
        )
        job.control.rate = rate
        run = Rebuild(
            source,
            source_name,
            destination,
            name,
            algorithm=chosen,
            register_missing=register_missing,
            verify=verify,
            job=job,
        )
    except BaseException:
        held.close()
        raise
    return jobs.start(job, lambda _: run.run(), held)


def _check_name(name: str) -> None:
    if not name or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, f"{name!r} is not a name for a volume")


@contextmanager
def _alone(location: str, name: str) -> Iterator[None]:
    """One rebuild at a time into one volume."""
    key = (location, name)
    with _active_lock:
        if key in _active:
            raise OSError(errno.EBUSY, f"'{name}' on {location} is being rebuilt already")
        _active.add(key)
    try:
        yield
    finally:
        with _active_lock:
            _active.discard(key)
