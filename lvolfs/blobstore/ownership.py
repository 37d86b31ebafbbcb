"""Who owns which cluster and metadata page, and what is owned twice."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from lvolfs.blobstore.cluster_runs import allocated
from lvolfs.blobstore.contents import StoredBlob
from lvolfs.blobstore.masks import bits_of
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

    for position, blob in enumerate(found, start=1):
        for page in [*blob.chain, *filter(None, blob.extent_pages)]:
            other = page_owner.setdefault(page, blob)
            if other is not blob or (page in blob.chain and page in blob.extent_pages):
                conflict(other, blob, f"metadata page {page}")
        for index, cluster in allocated(blob.clusters):
            if cluster >= total:
                continue
            if cluster < superblock.metadata_clusters:
                if blob.damage is not None:
                    continue
                ownership.conflicts.setdefault(
                    blob.id, f"cluster {cluster} of the store holds metadata, not data"
                )
                continue
            if not owner[cluster]:
                owner[cluster] = position
                continue
            other = found[owner[cluster] - 1]
            child = _same_place_in_parent(by_id, index, cluster, blob, other)
            if child is None:
                conflict(other, blob, f"cluster {cluster} of the store")
            else:
                ownership.shared_with_parent.add(child.id)
    ownership.used_pages = bits_of(page_owner, superblock.md_len)
    metadata = range(superblock.metadata_clusters)
    used = [cluster for cluster, who in enumerate(owner) if who]
    ownership.used_clusters = bits_of([*metadata, *used], total)
    return ownership


def _same_place_in_parent(
    by_id: dict[int, StoredBlob], index: int, cluster: int, one: StoredBlob, two: StoredBlob
) -> StoredBlob | None:
    """The clone of the two, if the cluster is at the same place in clone and parent."""
    for child, parent in ((one, two), (two, one)):
        if child.link("SNAP") == parent.id and by_id.get(parent.id) is parent:
            theirs, ours = parent.cluster_map, child.cluster_map
            if index < min(len(theirs), len(ours)) and theirs[index] == ours[index] == cluster:
                return child
    return None
