"""Snapshot creations and deletions that a crash cut short, and what repairs them.

A snapshot carries SNAPTMP (the id of the original) while it is being created and SNAPRM (the id
of its clone) while it is being deleted. The other blob's own parent link is the commit point
of both: if it names the snapshot, the snapshot stays, otherwise it goes.
"""

from dataclasses import dataclass

from lvolfs.blobstore.contents import StoreContents, StoredBlob
from lvolfs.blobstore.descriptors import DataReadOnly

MARKERS = ("SNAPRM", "SNAPTMP")


@dataclass(frozen=True)
class Interrupted:
    """keep: the snapshot stays and loses its markers; otherwise it is to be removed without
    its clusters, which the other blob owns. `deletion` tells which operation it was."""

    snapshot: StoredBlob
    other: StoredBlob
    keep: bool
    deletion: bool

    @property
    def operation(self) -> str:
        return "deletion" if self.deletion else "creation"


def find_interrupted(contents: StoreContents) -> list[Interrupted]:
    """All of them, undamaged ones. One whose other blob is missing or damaged is left alone:
    it may hold the only copy of the data."""
    blobs = contents.blobs
    parents = {blob.link("SNAP") for blob in blobs.values()}
    found = []
    for snapshot in blobs.values():
        marker = next((name for name in MARKERS if name in snapshot.metadata.internal), None)
        if marker is None or snapshot.damage is not None:
            continue
        other = blobs.get(snapshot.link(marker) or 0)
        if other is None or other.damage is not None:
            continue
        keep = snapshot.id in parents
        found.append(Interrupted(snapshot, other, keep, marker == "SNAPRM"))
    return found


def repair_in_memory(case: Interrupted) -> None:
    """Brings the snapshot as read into the state that the repair will make durable."""
    snapshot = case.snapshot
    if case.keep:
        for marker in MARKERS:
            snapshot.metadata.internal.pop(marker, None)
        snapshot.metadata.data_ro |= DataReadOnly.READ_ONLY
    else:
        snapshot.num_clusters = 0
        snapshot.clusters = {}
        snapshot.extent_pages = {}
        snapshot.runs = []
        snapshot.rle = False
