"""Changing the size of an lvol."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from lvolfs.lvstore.behind_the_end import show_zeros_from

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol


# A commit that carries a new size may take pages for a longer chain.
SPARE_PAGES = 8


def resize(lvol: Lvol, size: int, *, event: str = "resized") -> None:
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
            raise store.is_full(f"lvol {lvol.name!r} needs {count - before} more clusters")
        try:
            _set_size(lvol, count)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise store.no_space(f"lvol {lvol.name!r} cannot be resized") from error
            raise
        store.notify(event, lvol)


def extend(lvol: Lvol, size: int) -> None:
    """Grows it to at least `size` bytes for a write past its end. Where nothing stands against
    it that costs no barrier: the new size becomes durable with the data, at the next flush."""
    store = lvol.store
    with store.changing():
        count = store.clusters_for(size, f"lvol {lvol.name!r}")
        if count <= lvol.num_clusters:
            return
        if _grows_in_memory(lvol):
            try:
                lvol.blob.extend(count)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:
                store.notify("extended", lvol)
                return
        resize(lvol, size, event="extended")


def _grows_in_memory(lvol: Lvol) -> bool:
    """Without a parent there is nothing to be hidden behind the old end, a thin one needs no
    clusters now, and with pages to spare the commit of the size cannot fail for want of them."""
    lvol.check_live()
    lvol.check_metadata_writable()
    return (
        lvol.is_thin
        and lvol.parent is None
        and not lvol.is_external_clone
        and not lvol.is_snapshot
        and not lvol.is_read_only
        and not lvol.busy
        and not lvol.blob.rle
        and lvol.store.free_pages > SPARE_PAGES
    )


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
