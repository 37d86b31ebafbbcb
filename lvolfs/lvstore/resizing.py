"""Changing the size of an lvol."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from lvolfs.lvstore.behind_the_end import show_zeros_from

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol


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
            show_zeros_from(lvol, before)
            lvol.persist(lvol.metadata)
        except OSError as error:
            if count > before:
                lvol.blob.resize(before)
            elif error.errno in {errno.ENOSPC, errno.ENOMEM}:
                # What was cut off cannot be had back; the next commit tries again.
                store.fail(error)
            raise
