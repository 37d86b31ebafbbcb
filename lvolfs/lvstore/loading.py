"""From a device to blobs in memory: what opening a store does before anybody uses it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field

from lvolfs._native.blob import Blob
from lvolfs._native.device import Device
from lvolfs._native.engine import Engine
from lvolfs.blobstore.check import open_engine
from lvolfs.blobstore.contents import StoreContents, StoredBlob, read_contents
from lvolfs.blobstore.descriptors import DataReadOnly, MetadataReadOnly
from lvolfs.blobstore.extents import allocated, joined
from lvolfs.blobstore.interrupted import Interrupted, find_interrupted, repair_in_memory
from lvolfs.blobstore.masks import bits_set
from lvolfs.blobstore.metadata_page import root_index
from lvolfs.blobstore.ownership import Ownership, find_owners
from lvolfs.blobstore.superblock import Superblock


@dataclass
class LoadedStore:
    """blobs: those that can be used, by id. removals: interrupted snapshots that go."""

    engine: Engine
    contents: StoreContents
    blobs: dict[int, Blob]
    interrupted: list[Interrupted]
    shared_with_parent: set[int]
    removals: list[Blob] = field(default_factory=list)


class _OwnedTwiceError(Exception):
    pass


def load_store(
    device: Device, superblock: Superblock, *, read_only: bool, force_replay: bool = False
) -> LoadedStore:
    """Reads the store and takes its blobs over into an engine.

    Blobs with damage stay out, marked in `contents`; what they are known to own is kept from
    reuse. A store that was closed cleanly, but whose masks differ in a single bit from what
    its blobs own, is replayed.
    """
    engine = open_engine(device, superblock, read_only=read_only)
    try:
        contents = read_contents(device, engine, superblock, force_replay=force_replay)
        interrupted = find_interrupted(contents)
        for case in interrupted:
            repair_in_memory(case)
        owners: Ownership | None = None
        try:
            loaded = _adopt(engine, contents, interrupted, owners)
        except _OwnedTwiceError:
            owners = find_owners(superblock, contents.blobs.values())
            for blob_id, text in owners.conflicts.items():
                contents.blobs[blob_id].damage = contents.blobs[blob_id].damage or text
            engine.close()
            engine = open_engine(device, superblock, read_only=read_only)
            loaded = _adopt(engine, contents, interrupted, owners)
        if not contents.replayed and not _masks_agree(loaded):
            engine.close()
            loaded = load_store(device, superblock, read_only=read_only, force_replay=True)
            loaded.contents.problem = "the masks differ from what the blobs own"
    except BaseException:
        engine.close()
        raise
    return loaded


def _masks_agree(loaded: LoadedStore) -> bool:
    return (
        not loaded.contents.damaged
        and loaded.engine.used_pages_mask() == loaded.contents.masked_pages
        and loaded.engine.used_clusters_mask() == loaded.contents.masked_clusters
    )


def _adopt(
    engine: Engine,
    contents: StoreContents,
    interrupted: list[Interrupted],
    owners: Ownership | None,
) -> LoadedStore:
    removed = {case.snapshot.id for case in interrupted if not case.keep}
    loaded = LoadedStore(
        engine, contents, {}, interrupted, owners.shared_with_parent if owners else set()
    )
    for stored in _parents_first(contents.blobs):
        parent_id = stored.link("SNAP")
        if stored.id not in removed and parent_id is not None and stored.damage is None:
            parent = contents.blobs[parent_id]
            if parent.damage is not None:
                stored.damage = f"its parent, {parent.title}, is damaged"
        if stored.damage is not None:
            continue
        shares_with = None
        if stored.id in loaded.shared_with_parent and parent_id is not None:
            shares_with = loaded.blobs[parent_id]
        try:
            blob = _adopt_blob(engine, stored, shares_with)
        except OSError as error:
            if error.errno == errno.EEXIST and owners is None:
                raise _OwnedTwiceError from error
            if error.errno not in {errno.EEXIST, errno.ERANGE}:
                raise
            stored.damage = f"it names a cluster or page that it cannot own: {error.strerror}"
            continue
        if stored.id in removed:
            loaded.removals.append(blob)
        else:
            loaded.blobs[stored.id] = blob
    loaded.shared_with_parent &= loaded.blobs.keys()
    _reserve_for_damaged(engine, contents)
    return loaded


def _adopt_blob(engine: Engine, stored: StoredBlob, shares_with: Blob | None) -> Blob:
    return engine.adopt_blob(
        stored.id,
        num_clusters=stored.num_clusters,
        clusters=stored.clusters,
        extent_pages=stored.extent_pages,
        chain=stored.chain,
        head=stored.metadata.pack_head(),
        checksums=stored.checksums,
        thin=stored.thin,
        read_only=stored.frozen or bool(stored.metadata.data_ro),
        rle=stored.rle,
        shares_with=shares_with,
    )


def _parents_first(blobs: dict[int, StoredBlob]) -> Iterator[StoredBlob]:
    """Every blob once, none before its parent; loops are damage and have no order."""
    done: set[int] = set()
    for start in blobs.values():
        path = []
        blob: StoredBlob | None = start
        while blob is not None and blob.id not in done:
            done.add(blob.id)
            path.append(blob)
            parent = blob.link("SNAP")
            blob = None if parent is None else blobs.get(parent)
        yield from reversed(path)


def _reserve_for_damaged(engine: Engine, contents: StoreContents) -> None:
    """Nothing that a damaged blob may own is handed out: what it names, as far as it can be
    read, its parent's place, and everything that the masks of the last clean close have as used."""
    engine.mark_pages(contents.unreadable)
    damaged = contents.damaged
    if not damaged and not contents.unreadable:
        return
    total = contents.superblock.total_clusters
    for stored in damaged:
        engine.mark_pages(stored.pages)
        parent_id = stored.link("SNAP")
        if parent_id is not None and root_index(parent_id) < engine.md_len:
            # A new blob there would have the id of a missing parent, and pass for it.
            engine.mark_pages([root_index(parent_id)])
        engine.mark_clusters(c for _, c in allocated(stored.clusters) if c < total)
    for clusters in joined((first, count) for b in damaged for _, first, count in b.runs):
        engine.mark_clusters(clusters)
    engine.mark_pages(bits_set(contents.masked_pages))
    engine.mark_clusters(bits_set(contents.masked_clusters))


def is_frozen(stored: StoredBlob) -> bool:
    """Whether it carries something unknown that forbids changing its metadata."""
    metadata = stored.metadata
    return bool(
        stored.frozen
        or metadata.data_ro & ~DataReadOnly.KNOWN
        or metadata.md_ro & ~MetadataReadOnly.KNOWN
    )
