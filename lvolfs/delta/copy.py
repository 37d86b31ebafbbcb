"""Shallow copy, range shallow copy and deep copy of a snapshot, in the background."""

from __future__ import annotations

import errno
import os
import sys
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lvolfs._native.copy import COPY, UNMAP, CopyLoop
from lvolfs._native.endpoint import Endpoint
from lvolfs.bdev import Destination, open_destination
from lvolfs.delta.background import run_loop, threads_for
from lvolfs.delta.checksum_table import bit, bits_set
from lvolfs.delta.checksums import select_clusters
from lvolfs.delta.jobs import Job, registry

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol

RESOLVES_TO_ZEROS = 0xFFFFFFFF


def shallow_copy(
    source: Lvol,
    destination: Lvol | str | os.PathLike[str],
    clusters: Iterable[int | range] | None = None,
    deep: bool = False,
    *,
    rate: int = 0,
    parallel: int | None = None,
    refused_as_job: bool = False,
) -> Job:
    """Copies clusters of a read-only lvol to the same offsets of a destination.

    Without `clusters`: those that the source owns itself. With: just those, in the order
    given; a listed cluster that the source does not own is unmapped at the destination.
    deep: every cluster that it or an ancestor has; the job's total is then all clusters, and
    those that nobody has count as done. The destination is flushed before the job is
    complete. rate: bytes per second, 0 = no limit. parallel: threads, at most 2; with two the
    order is kept but for the neighbours that are under way at the same time.

    OSError, before anything is written: what open_destination raises; EPERM for a writable
    source; EINVAL for a destination that is smaller or in the source's own chain, or for an
    empty selection; ERANGE for a cluster past the end; EBUSY when the source is busy.
    refused_as_job gives those that SPDK reports later as a job in state "error" instead:
    all but a destination that cannot be had, and an empty selection; its errno is SPDK's.
    """
    if clusters is not None and deep:
        raise OSError(errno.EINVAL, "a deep copy takes all clusters, not a selection")
    if clusters is not None:
        clusters = list(clusters)
        if not clusters:
            raise OSError(errno.EINVAL, f"no clusters of lvol '{source.name}' are named")
    _refuse_own_chain(source, destination)
    store = source.store
    opened = open_destination(destination, store)
    job = Job("copy", lvol=source.name, lvol_uuid=source.uuid, destination=opened.name)
    job.control.rate = rate
    held = ExitStack()
    held.push(opened)
    try:
        indexes, actions = _plan(source, opened, clusters, deep)
        held.enter_context(source.claim("copy"))
    except OSError as reason:
        held.close()
        if refused_as_job:
            if reason.errno == errno.ERANGE:
                reason = OSError(errno.EINVAL, reason.strerror)
            return registry(store).add_refused(job, reason)
        raise
    except BaseException:
        held.close()
        raise
    job.total = source.num_clusters if deep else len(indexes)
    job.skipped = job.total - len(indexes)
    job.phase = "deep" if deep else "shallow" if clusters is None else "range"

    def work(job: Job) -> None:
        from_ = Endpoint.of_blob(source.blob, f"lvol '{source.name}'", own_layer=not deep)
        loop = CopyLoop(
            from_,
            opened.endpoint,
            indexes,
            actions,
            store.cluster_size,
            job.control,
            sparse=opened.kind in {"file", "block device"},
        )
        run_loop(loop, threads_for(parallel))
        loop.flush()

    started = registry(store).start(job, work, held)
    if not isinstance(destination, str | os.PathLike) and destination.store is not store:
        registry(destination.store).adopt(started)
    return started


def _refuse_own_chain(source: Lvol, destination: Lvol | str | os.PathLike[str]) -> None:
    target = destination
    if isinstance(target, str):
        try:
            target = source.store.get(target)
        except OSError:
            return  # no lvol of this store
    link: Lvol | None = source
    while link is not None:
        if link is target:
            raise OSError(
                errno.EINVAL,
                f"destination lvol '{link.name}' is part of the chain of '{source.name}' itself",
            )
        link = link.parent


def _plan(
    source: Lvol, opened: Destination, clusters: Iterable[int | range] | None, deep: bool
) -> tuple[array[int], bytes]:
    if not source.is_read_only:
        raise OSError(
            errno.EPERM,
            f"lvol '{source.name}' is writable and could change during the copy; "
            "copy a snapshot of it",
        )
    if opened.size < source.size:
        raise OSError(
            errno.EINVAL,
            f"destination {opened.name} has {opened.size} bytes, "
            f"lvol '{source.name}' has {source.size}; make the destination bigger",
        )
    if deep:
        resolved: array[int] = array("I")
        resolved.frombytes(source.blob.resolve())
        if sys.byteorder == "big":
            resolved.byteswap()
        indexes = array("I", (c for c, where in enumerate(resolved) if where != RESOLVES_TO_ZEROS))
        return indexes, bytes([COPY]) * len(indexes)
    owned = source.fragmap()
    selected = select_clusters(source.name, source.num_clusters, clusters)
    if selected is None:
        indexes = array("I", bits_set(owned))
        return indexes, bytes([COPY]) * len(indexes)
    return selected, bytes(COPY if bit(owned, c) else UNMAP for c in selected)
