"""The last writes of a store that is closed in order."""

from collections.abc import Iterable
from dataclasses import replace

from lvolfs._native.device import Device
from lvolfs._native.engine import Engine
from lvolfs.blobstore.masks import MaskKind, bits_of, pack_mask
from lvolfs.blobstore.metadata_page import root_index
from lvolfs.blobstore.superblock import Superblock


def mark_clean(
    device: Device,
    engine: Engine,
    superblock: Superblock,
    blob_ids: Iterable[int],
    *,
    clean: bool,
) -> None:
    """Writes the three masks and then, if `clean`, the superblock that vouches for them.

    Nothing may change the store afterwards. Stores older than version 3 have no blob id mask.
    """
    s = superblock
    roots = bits_of((root_index(blob_id) for blob_id in blob_ids), s.md_len)
    masks = (
        (MaskKind.PAGES, s.used_page_mask_start, s.used_page_mask_len, s.md_len),
        (MaskKind.BLOB_IDS, s.used_blobid_mask_start, s.used_blobid_mask_len, s.md_len),
        (MaskKind.CLUSTERS, s.used_cluster_mask_start, s.used_cluster_mask_len, s.total_clusters),
    )
    bits = {
        MaskKind.PAGES: engine.used_pages_mask(),
        MaskKind.BLOB_IDS: roots,
        MaskKind.CLUSTERS: engine.used_clusters_mask(),
    }
    engine.write_superblock(replace(s, clean=False).pack())
    for kind, start, slots, length in masks:
        if slots:
            region = pack_mask(kind, length, bits[kind], slots * s.page_size)
            device.pwrite(region, start * s.page_size)
    device.flush()
    if clean:
        engine.write_superblock(replace(s, clean=True).pack())
