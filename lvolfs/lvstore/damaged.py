"""Blobs that cannot be trusted, given up on request: their space is free again."""

from __future__ import annotations

from dataclasses import replace

from lvolfs._native.device import Device
from lvolfs._native.engine import Engine
from lvolfs.blobstore.contents import StoredBlob
from lvolfs.blobstore.metadata_page import parse_page, root_index
from lvolfs.blobstore.superblock import PAGE, Superblock, read_superblock
from lvolfs.lvstore.loading import load_store


def remove_damaged(path: str) -> list[StoredBlob]:
    """Removes every damaged blob of a store that nobody has open, for good; those removed.

    The store's own blob is never removed. Opening the store afterwards replays it. Raises
    OSError (FormatError for what is no store).
    """
    with Device(path) as device:
        superblock = read_superblock(device, path)
        loaded = load_store(device, superblock, read_only=True, force_replay=True)
        try:
            lost = [b for b in loaded.contents.damaged if b.id != superblock.super_blob]
            intact = [b for b in loaded.contents.blobs.values() if b.damage is None]
            pages = _pages_of(loaded.engine, lost, intact)
        finally:
            loaded.engine.close()
        if lost:
            # The masks do not fit any more.
            device.pwrite(replace(superblock, clean=False).pack(), 0)
            device.flush()
            roots = [root_index(blob.id) for blob in lost]
            # First pages first: a chain without its end would be a damaged blob again.
            for some in (roots, pages):
                for index in some:
                    device.pwrite(bytes(PAGE), _offset(superblock, index))
                device.flush()
    return lost


def _offset(superblock: Superblock, index: int) -> int:
    return (superblock.md_start + index) * superblock.page_size


def _pages_of(engine: Engine, lost: list[StoredBlob], intact: list[StoredBlob]) -> list[int]:
    """The other pages that carry the id of a lost blob and that no other one uses. Left there,
    they would be taken for those of a later blob with the same id."""
    ids = {blob.id for blob in lost}
    used = {page for blob in intact for page in blob.pages}
    return [
        index
        for index, content in engine.scan_pages(unreadable=[])
        if parse_page(content).blob_id in ids and index not in used
    ]
