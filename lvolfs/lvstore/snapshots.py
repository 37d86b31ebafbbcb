"""Snapshots and clones: making them, and deleting lvols.

Each change is a sequence of durable steps. The order is the format's: a crash between any two
leaves markers (SNAPTMP, SNAPRM) from which opening the store completes or undoes it. Want of
space between two steps is undone here; after any other error the store counts as failed.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from lvolfs.blobstore.descriptors import BlobMetadata, DataReadOnly, Invalid
from lvolfs.lvstore.behind_the_end import keep_zeros_behind_parent
from lvolfs.lvstore.lvol_xattrs import check_xattr, is_reserved, without_checksums
from lvolfs.lvstore.names import new_identity

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol

_PARENT_FLAGS = Invalid.EXTERNAL_SNAPSHOT


def blob_link(blob_id: int) -> bytes:
    return blob_id.to_bytes(8, "little")


def inherit_parent(metadata: BlobMetadata, source: BlobMetadata) -> None:
    """Makes `metadata` name the same parent, of either kind or none, as `source` does."""
    for name in ("SNAP", "EXTSNAP"):
        metadata.internal.pop(name, None)
        if name in source.internal:
            metadata.internal[name] = source.internal[name]
    metadata.invalid &= ~_PARENT_FLAGS
    metadata.invalid |= source.invalid & _PARENT_FLAGS


def name_parent(metadata: BlobMetadata, parent: Lvol) -> None:
    """Makes `metadata` name `parent`."""
    metadata.internal.pop("EXTSNAP", None)
    metadata.internal["SNAP"] = blob_link(parent.id)
    metadata.invalid &= ~_PARENT_FLAGS


def create_snapshot(origin: Lvol, name: str, xattrs: Mapping[str, bytes]) -> Lvol:
    """The origin's clusters move to a new read-only lvol; the origin becomes its clone."""
    store = origin.store
    with store.changing():
        origin.check_live()
        store.check_new_name(name)
        origin.check_metadata_writable()
        origin.check_idle()
        if origin.is_read_only:
            raise OSError(
                errno.EPERM,
                f"lvol {origin.name!r} is read-only: make a clone instead of a snapshot",
            )
        for xattr, value in xattrs.items():
            if is_reserved(xattr):
                raise OSError(errno.EPERM, f"xattr {xattr!r} is reserved")
            check_xattr(name, xattr, value)
        before = origin.metadata
        metadata = BlobMetadata(xattrs={**new_identity(name), **xattrs})
        metadata.invalid |= Invalid.THIN
        metadata.md_ro = before.md_ro
        metadata.internal["SNAPTMP"] = blob_link(origin.id)
        thin = origin.is_thin
        with store.engine.exclusive():
            blob = store.create_blob(origin.num_clusters, metadata, name)
            store.persist_new(blob)
            snapshot = store.add_lvol(blob, metadata, name)
            old_parent, old_external = origin.parent, origin.external
            try:
                # The snapshot gets the clusters, the parent and the flags ...
                blob.swap_maps(origin.blob)
                snapshot.link_as(origin)
                blob.set_thin(thin)
                inherit_parent(metadata, before)
                metadata.invalid = before.invalid
                snapshot.persist(metadata)
                # ... and the origin, in the step that commits, an empty map over it.
                clone = before.copy()
                clone.invalid |= Invalid.THIN | Invalid.EXTENT_TABLE
                name_parent(clone, snapshot)
                origin.link_parent(snapshot)
                origin.blob.set_thin(True)
                origin.persist(clone)
            except OSError:
                if before.internal.get("EXTSNAP") is not None:
                    origin.link_external(old_external)
                else:
                    origin.link_parent(old_parent)
                origin.blob.set_thin(thin)
                snapshot.link_parent(None)
                blob.swap_maps(origin.blob)
                store.remove_lvol(snapshot)
                _destroy(snapshot)
                raise
            final = metadata.copy()
            del final.internal["SNAPTMP"]
            final.data_ro |= DataReadOnly.READ_ONLY
            blob.set_read_only(True)
            _finish(snapshot, final)
        store.notify("created", snapshot)
        store.notify("changed", origin)
        return snapshot


def _finish(snapshot: Lvol, metadata: BlobMetadata) -> None:
    """The last step of a change that is committed already. Should its new metadata find no
    room, they are written when the store is closed, or by the repair when it is opened."""
    try:
        snapshot.persist(metadata)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.ENOMEM}:
            raise
        snapshot.metadata = metadata
        snapshot.blob.set_head(metadata.pack_head())
        snapshot.store.unfinished.append(snapshot)


def create_clone(snapshot: Lvol, name: str) -> Lvol:
    store = snapshot.store
    with store.changing():
        snapshot.check_live()
        store.check_new_name(name)
        if not snapshot.metadata.data_ro & DataReadOnly.READ_ONLY:
            raise OSError(
                errno.EINVAL,
                f"lvol {snapshot.name!r} is writable: take a snapshot and clone that",
            )
        metadata = BlobMetadata(xattrs=new_identity(name))
        metadata.invalid |= Invalid.THIN
        name_parent(metadata, snapshot)
        with store.engine.exclusive():
            blob = store.create_blob(snapshot.num_clusters, metadata, name)
            store.persist_new(blob)
            clone = store.add_lvol(blob, metadata, name)
            clone.link_parent(snapshot)
        store.notify("created", clone)
        return clone


def delete(lvol: Lvol) -> None:
    store = lvol.store
    with store.changing():
        lvol.check_live()
        lvol.check_idle()
        if lvol.open_count:
            raise OSError(errno.EBUSY, f"lvol {lvol.name!r} is open")
        if store.has_damaged_children(lvol):
            raise OSError(errno.EBUSY, f"snapshot {lvol.name!r} is the parent of a damaged lvol")
        if len(lvol.children) > 1:
            names = ", ".join(sorted(child.name for child in lvol.children))
            raise OSError(
                errno.EBUSY,
                f"snapshot {lvol.name!r} has several clones ({names}); delete, inflate or "
                "decouple all but one of them",
            )
        clone = lvol.children[0] if lvol.children else None
        if clone is not None:
            clone.check_idle()
            clone.check_metadata_writable()
            lvol.check_metadata_writable()
        with store.engine.exclusive(doomed=lvol.blob):
            if clone is not None:
                try:
                    keep_zeros_behind_parent(clone)
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        raise store.no_space(f"deleting snapshot {lvol.name!r}") from error
                    raise
                _merge_into_clone(lvol, clone)
            lvol.link_parent(None)
            store.remove_lvol(lvol)
            lvol.deleted = True
            _destroy(lvol)
        store.notify("deleted", lvol)
        if clone is not None:
            store.notify("changed", clone)


def _destroy(lvol: Lvol) -> None:
    try:
        lvol.store.engine.destroy(lvol.blob)
    except OSError as error:
        lvol.store.fail(error)
        raise


def _merge_into_clone(snapshot: Lvol, clone: Lvol) -> None:
    """Gives the only clone what it lacks of the snapshot's; the clone's new metadata commit.

    Nobody can tell the difference by reading, but the clone's own layer is another one:
    checksums registered for it are dropped.
    """
    before, clone_before = snapshot.metadata, clone.metadata
    records_before = clone.blob.checksums
    marked = before.copy()
    marked.internal["SNAPRM"] = blob_link(clone.id)
    snapshot.persist(marked)
    merged = without_checksums(clone_before)
    inherit_parent(merged, before)
    try:
        clone.blob.merge_from(snapshot.blob)
        clone.link_as(snapshot)
        clone.blob.set_checksums(b"")
        clone.persist(merged)
    except OSError as error:
        clone.link_parent(snapshot)
        clone.blob.drop_shared_with(snapshot.blob)
        clone.blob.set_checksums(records_before)
        with suppress(OSError):
            # Should this fail, too, then opening the store removes the marker.
            snapshot.persist(before)
        if error.errno == errno.ENOSPC:
            raise snapshot.store.no_space(
                f"merging snapshot {snapshot.name!r} into {clone.name!r} needs metadata pages"
            ) from error
        raise
    # In memory only: it is destroyed next, and should a crash prevent that, its marker tells
    # that nothing it lists is its own any more.
    snapshot.blob.drop_shared_with(clone.blob)
