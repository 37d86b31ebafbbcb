"""Changing the size of an lvol."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol

ZEROS = 0xFFFFFFFF


def resize(lvol: Lvol, size: int) -> None:
    """Shrinking frees at once. Growing a clone over what its parent still has behind its old
    end would make that appear: such clusters are overwritten with zeros first."""
    store = lvol.store
    with store.changing():
        lvol.check_live()
        lvol.check_metadata_writable()
        lvol.check_idle()
        if lvol.is_snapshot or lvol.is_read_only:
            raise OSError(errno.EPERM, f"lvol {lvol.name!r} is a snapshot: its size is fixed")
        count = store.clusters_for(size, f"lvol {lvol.name!r}")
        before = lvol.num_clusters
        if count == before:
            return
        if not lvol.is_thin and count - before > store.free_clusters:
            raise store.no_space(f"lvol {lvol.name!r} needs {count - before} more clusters")
        try:
            _set_size(lvol, count)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise store.no_space(f"lvol {lvol.name!r} cannot be resized") from error
            raise
        store.notify("resized", lvol)


def _set_size(lvol: Lvol, count: int) -> None:
    store = lvol.store
    before = lvol.num_clusters
    with store.engine.exclusive():
        lvol.blob.resize(count)
        try:
            _hide_parent_data(lvol, before, count)
            lvol.persist(lvol.metadata)
        except OSError as error:
            if count > before:
                lvol.blob.resize(before)
            elif error.errno in {errno.ENOSPC, errno.ENOMEM}:
                # What was cut off cannot be had back; the next commit tries again.
                store.fail(error)
            raise


def _hide_parent_data(lvol: Lvol, first: int, end: int) -> None:
    """Zeros of its own where the parent has data behind the old end: in the commit that
    makes the lvol larger, so that no crash shows what was cut off once."""
    if end <= first or (lvol.parent is None and not lvol.is_external_clone):
        return
    size = lvol.store.cluster_size
    for start, stop in _runs_with_data(lvol.blob.resolve(first, end - first)):
        lvol.blob.write_zeroes((first + start) * size, (stop - start) * size)


def _runs_with_data(resolved: bytes) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of entries that are not zeros."""
    entries = array("I", resolved)
    start = None
    for index, entry in enumerate(entries):
        if entry != ZEROS and start is None:
            start = index
        elif entry == ZEROS and start is not None:
            yield start, index
            start = None
    if start is not None:
        yield start, len(entries)
