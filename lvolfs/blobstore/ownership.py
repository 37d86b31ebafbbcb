"""Who owns which cluster and metadata page, and what is owned twice."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from lvolfs.blobstore.contents import StoredBlob
from lvolfs.blobstore.extents import CLUSTERS_PER_EXTENT, allocated, cluster_at, joined
from lvolfs.blobstore.masks import bits_of, bits_where
from lvolfs.blobstore.superblock import Superblock


@dataclass
class Ownership:
    """shared_with_parent: clones that have clusters of their parent in their own map, each at
    the parent's place. A crash while their parent was being deleted leaves that; it is
    undone by dropping the clone's entries. conflicts: blob id -> why it is damaged."""

    used_pages: bytes
    used_clusters: bytes
    shared_with_parent: set[int] = field(default_factory=set)
    conflicts: dict[int, str] = field(default_factory=dict)


def find_owners(superblock: Superblock, blobs: Iterable[StoredBlob]) -> Ownership:
    """Goes through all blobs. What is known of damaged ones counts as used, but cannot make
    a conflict: they are not going to be written to."""
    found = sorted(blobs, key=lambda blob: blob.id)
    by_id = {blob.id: blob for blob in found}
    total = superblock.total_clusters
    # owner[c]: position in `found` plus one
    owner = array("I", bytes(4 * total))
    page_owner: dict[int, StoredBlob] = {}
    ownership = Ownership(b"", b"")

    def conflict(first: StoredBlob, second: StoredBlob, what: str) -> None:
        if first.damage is not None or second.damage is not None:
            return
        ownership.conflicts.setdefault(first.id, f"{what} is also used by {second.title}")
        ownership.conflicts.setdefault(second.id, f"{what} is also used by {first.title}")

    def claim(blob: StoredBlob, position: int, index: int, cluster: int) -> None:
        if cluster >= total:
            return
        if cluster < superblock.metadata_clusters:
            if blob.damage is None:
                ownership.conflicts.setdefault(
                    blob.id, f"cluster {cluster} of the store holds metadata, not data"
                )
            return
        if not owner[cluster]:
            owner[cluster] = position
            return
        other = found[owner[cluster] - 1]
        child = _same_place_in_parent(by_id, index, cluster, blob, other)
        if child is None:
            conflict(other, blob, f"cluster {cluster} of the store")
        else:
            ownership.shared_with_parent.add(child.id)

    for position, blob in enumerate(found, start=1):
        if not set(blob.chain).isdisjoint(blob.extent_pages.values()):
            conflict(blob, blob, "one of its metadata pages")
        for page in blob.pages:
            other = page_owner.setdefault(page, blob)
            if other is not blob:
                conflict(other, blob, f"metadata page {page}")
        for extent, owned in blob.clusters.items():
            first = int.from_bytes(owned[:4], "little")
            place = slice(first, first + CLUSTERS_PER_EXTENT)
            in_order = superblock.metadata_clusters <= first <= total - CLUSTERS_PER_EXTENT
            if in_order and owned == _side_by_side(first) and not any(owner[place]):
                # As most are, and nobody else's.
                owner[place] = array("I", [position]) * CLUSTERS_PER_EXTENT
                continue
            for index, cluster in allocated({extent: owned}):
                claim(blob, position, index, cluster)
    # Runs are left only of damaged blobs.
    for clusters in joined((first, count) for blob in found for _, first, count in blob.runs):
        owner[clusters.start : clusters.stop] = array("I", [1]) * len(clusters)
    owner[: superblock.metadata_clusters] = array("I", [1]) * superblock.metadata_clusters
    ownership.used_pages = bits_of(page_owner, superblock.md_len)
    ownership.used_clusters = bits_where(owner)
    return ownership


def _side_by_side(first: int) -> bytes:
    return array("I", range(first, first + CLUSTERS_PER_EXTENT)).tobytes()


def _same_place_in_parent(
    by_id: dict[int, StoredBlob], index: int, cluster: int, one: StoredBlob, two: StoredBlob
) -> StoredBlob | None:
    """The clone of the two, if the cluster is at the same place in clone and parent."""
    for child, parent in ((one, two), (two, one)):
        if child.link("SNAP") == parent.id and by_id.get(parent.id) is parent:
            theirs = cluster_at(parent.clusters, index)
            if theirs == cluster_at(child.clusters, index) == cluster:
                return child
    return None
