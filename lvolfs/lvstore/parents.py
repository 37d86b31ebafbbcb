"""Which lvol's data show through: inflate, decouple, detach and new parents."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from lvolfs.blobstore.descriptors import BlobMetadata, Invalid
from lvolfs.lvstore.behind_the_end import keep_zeros_behind_parent
from lvolfs.lvstore.external import Source, default_external_id, external_id_field
from lvolfs.lvstore.lvol_xattrs import without_checksums
from lvolfs.lvstore.snapshots import inherit_parent, name_parent

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol

Progress = Callable[[int, int], None] | None
Cancel = Callable[[], bool] | None

# Clusters that are filled between two looks at `cancel`.
SLICE = 16


def inflate(lvol: Lvol, progress: Progress, cancel: Cancel) -> None:
    store = lvol.store
    with lvol.claim("inflate"):
        with store.changing():
            _check(lvol)
            missing = lvol.num_clusters - lvol.num_allocated_clusters
            if missing > store.free_clusters:
                raise store.is_full(f"inflating lvol {lvol.name!r} needs {missing} clusters")
            if lvol.degraded:
                raise _degraded(lvol)
        _fill(lvol, 0, True, progress, cancel)
        with store.changing():
            # With the lock held no ancestor can be merged or reparented any more.
            _fill(lvol, 0, True, None, None)
            _become_thick(lvol)
            store.notify("changed", lvol)


def _become_thick(lvol: Lvol) -> None:
    metadata = without_checksums(lvol.metadata)
    metadata.invalid &= ~Invalid.THIN
    inherit_parent(metadata, BlobMetadata())
    with lvol.store.engine.exclusive():
        thin = lvol.is_thin
        lvol.blob.set_thin(False)
        try:
            _change_parent(lvol, metadata, lambda: lvol.link_parent(None))
        except OSError:
            lvol.blob.set_thin(thin)
            raise


def decouple(lvol: Lvol, progress: Progress, cancel: Cancel) -> None:
    store = lvol.store
    with lvol.claim("decouple"):
        with store.changing():
            _check(lvol)
            if lvol.parent is None and not lvol.is_external_clone:
                raise OSError(errno.EINVAL, f"lvol {lvol.name!r} has no parent to decouple from")
            if lvol.is_external_clone and lvol.external is None:
                raise _degraded(lvol)
        _fill(lvol, 1, False, progress, cancel)
        with store.changing():
            _fill(lvol, 1, False, None, None)
            _move_up(lvol)
            store.notify("changed", lvol)


def _move_up(lvol: Lvol) -> None:
    """Makes the parent's parent, of either kind or none, the lvol's."""
    parent = lvol.parent
    metadata = without_checksums(lvol.metadata)
    inherit_parent(metadata, parent.metadata if parent else BlobMetadata())
    with lvol.store.engine.exclusive():
        keep_zeros_behind_parent(lvol)
        _change_parent(
            lvol, metadata, lambda: lvol.link_as(parent) if parent else lvol.link_parent(None)
        )


def _fill(lvol: Lvol, depth: int, zeros: bool, progress: Progress, cancel: Cancel) -> None:
    """Copies what its ancestors show into clusters of its own. The checksums registered for
    it go first, durably: they would not fit the clusters that a crash leaves behind."""
    store = lvol.store
    if lvol.blob.checksums or without_checksums(lvol.metadata) != lvol.metadata:
        with store.changing():
            lvol.write_metadata(without_checksums(lvol.metadata), b"")
    total = lvol.num_clusters
    for first in range(0, total, SLICE):
        if cancel is not None and cancel():
            raise OSError(errno.ECANCELED, f"copying into lvol {lvol.name!r} was cancelled")
        count = min(SLICE, total - first)
        try:
            lvol.blob.fill_from_ancestors(first, count, depth=depth, zeros=zeros)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise store.no_space(f"lvol {lvol.name!r} needs more clusters") from error
            raise
        if progress is not None:
            progress(first + count, total)


def _change_parent(lvol: Lvol, metadata: BlobMetadata, link: Callable[[], None]) -> None:
    """Links in memory and makes it durable; on an error the old parent is back."""
    parent, external, has_external = lvol.parent, lvol.external, lvol.is_external_clone
    link()
    try:
        lvol.persist(metadata)
    except OSError:
        if has_external:
            lvol.link_external(external)
        else:
            lvol.link_parent(parent)
        raise


def detach(lvol: Lvol) -> None:
    store = lvol.store
    with store.changing():
        _check(lvol)
        lvol.check_idle()
        if lvol.is_external_clone:
            raise OSError(
                errno.EINVAL,
                f"lvol {lvol.name!r} is the clone of an external snapshot, from which it cannot be "
                "detached; decouple it",
            )
        if lvol.parent is None:
            raise OSError(errno.EINVAL, f"lvol {lvol.name!r} has no parent to detach from")
        metadata = lvol.metadata.copy()
        inherit_parent(metadata, BlobMetadata())
        with store.engine.exclusive():
            _change_parent(lvol, metadata, lambda: lvol.link_parent(None))
        store.notify("changed", lvol)


def set_parent(lvol: Lvol, snapshot: Lvol) -> None:
    store = lvol.store
    with store.changing():
        _check(lvol)
        lvol.check_idle()
        snapshot.check_live()
        reason = None
        if snapshot.store is not store:
            reason = f"{snapshot.name!r} is in another store"
        elif snapshot is lvol:
            reason = "it cannot be its own parent"
        elif not lvol.is_thin:
            reason = "it is not thin"
        elif not snapshot.is_snapshot or not snapshot.is_read_only:
            reason = f"{snapshot.name!r} is not a snapshot"
        elif snapshot.num_clusters > lvol.num_clusters:
            reason = f"{snapshot.name!r} is larger"
        elif _descends_from(snapshot, lvol):
            reason = f"{snapshot.name!r} is a descendant of it"
        if reason is not None:
            raise OSError(errno.EINVAL, f"cannot set a parent for lvol {lvol.name!r}: {reason}")
        if lvol.parent is snapshot:
            raise OSError(
                errno.EEXIST, f"{snapshot.name!r} is the parent of lvol {lvol.name!r} already"
            )
        metadata = lvol.metadata.copy()
        name_parent(metadata, snapshot)
        with store.engine.exclusive():
            _change_parent(lvol, metadata, lambda: lvol.link_parent(snapshot))
        store.notify("changed", lvol)


def set_external_parent(lvol: Lvol, source: Source, snapshot_id: str | None) -> None:
    store = lvol.store
    with store.changing():
        _check(lvol)
        lvol.check_idle()
        snapshot_id = snapshot_id or default_external_id(source)
        field = external_id_field(snapshot_id)
        if not lvol.is_thin:
            raise OSError(
                errno.EINVAL, f"cannot set a parent for lvol {lvol.name!r}: it is not thin"
            )
        if lvol.external_id == snapshot_id:
            raise OSError(
                errno.EEXIST,
                f"external snapshot {snapshot_id!r} is the parent of lvol {lvol.name!r} already",
            )
        device = store.externals.add(snapshot_id, source, store.cluster_size)
        metadata = lvol.metadata.copy()
        inherit_parent(metadata, BlobMetadata())
        metadata.internal["EXTSNAP"] = field
        metadata.invalid |= Invalid.EXTERNAL_SNAPSHOT
        with store.engine.exclusive():
            _change_parent(lvol, metadata, lambda: lvol.link_external(device))
        store.notify("changed", lvol)


def _check(lvol: Lvol) -> None:
    lvol.check_live()
    lvol.check_metadata_writable()


def _descends_from(lvol: Lvol, ancestor: Lvol) -> bool:
    current: Lvol | None = lvol
    while current is not None:
        if current is ancestor:
            return True
        current = current.parent
    return False


def _degraded(lvol: Lvol) -> OSError:
    return OSError(
        errno.EIO,
        f"lvol {lvol.name!r} needs an external snapshot that is missing; open the store with a "
        "path for it",
    )
