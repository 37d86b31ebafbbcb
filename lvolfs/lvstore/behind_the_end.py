"""What an ancestor holds behind the end of a smaller lvol between it and its descendant.

Behind the end of its parent an lvol reads as zeros. When it grows, or when the smaller parent
goes and a larger grandparent takes its place, it would suddenly show what the ancestor has
there: old data would come back. It gets zeroed clusters of its own first, in the same commit.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvolfs._native.blob import Blob
    from lvolfs.lvstore.lvol import Lvol


def show_zeros_from(lvol: Lvol, first: int) -> None:
    """Makes clusters from `first` on zeros, whatever ancestors have; in engine.exclusive()."""
    end = lvol.num_clusters
    if end <= first or (lvol.parent is None and not lvol.is_external_clone):
        return
    size = lvol.store.cluster_size
    for start, stop in _runs_with_data(lvol.blob, size, first, end):
        lvol.blob.write_zeroes(start * size, (stop - start) * size)


def keep_zeros_behind_parent(lvol: Lvol) -> None:
    """Before the grandparent becomes the parent: the zeros that the lvol shows behind its
    parent's end become its own where the grandparent has data. In engine.exclusive().

    For snapshots, too: what they show does not change. Raises OSError(ENOSPC).
    """
    parent = lvol.parent
    if parent is None or parent.num_clusters >= lvol.num_clusters:
        return
    first, end = parent.num_clusters, lvol.num_clusters
    if parent.parent is not None:
        end = min(end, parent.parent.num_clusters)
        size = lvol.store.cluster_size
        for start, stop in _runs_with_data(parent.parent.blob, size, first, end):
            _own_zeros(lvol, start, stop)
    elif parent.is_external_clone:
        if parent.external is not None:
            end = min(end, -(-parent.external.size // lvol.store.cluster_size))
        _own_zeros(lvol, first, end)


def _own_zeros(lvol: Lvol, first: int, end: int) -> None:
    if end > first:
        lvol.blob.fill_from_ancestors(first, end - first, depth=0, zeros=True)


def _runs_with_data(blob: Blob, size: int, first: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of clusters first..end-1 that does not read as zeros."""
    while first < end:
        try:
            start = blob.seek_data(first * size) // size
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        first = blob.seek_hole(start * size) // size
        if start < end:
            yield start, min(first, end)
