"""A blob from disk, taken over by a fresh store in memory."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EEXIST, EINVAL, ERANGE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from lvolfs._native.allocator cimport allocator_mark, allocator_release
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    extent_new,
    extent_t,
    map_extent,
    map_extent_page,
    map_own,
)


cdef int set_extents(blob_t *blob, dict clusters, dict pages) except -1:
    cdef extent_t *extent
    cdef uint32_t index, page, entries
    cdef bytes owned
    for index, owned in clusters.items():
        page = pages.get(index, 0)
        if (page == 0 and not blob.rle) or index >= blob.num_extents:
            raise OSError(EINVAL, f"blob {blob.id:#x}: no extent page for extent {index}")
        entries = blob.num_clusters - index * CLUSTERS_PER_EXTENT
        extent = blob.extents[index] = extent_new(page)
        if extent == NULL:
            raise MemoryError
        memcpy(
            extent.clusters, PyBytes_AS_STRING(owned),
            min(<uint64_t> len(owned), 4 * min(entries, <uint32_t> CLUSTERS_PER_EXTENT)),
        )
    for index, page in pages.items():
        if page == 0 or index >= blob.num_extents:
            raise OSError(EINVAL, f"blob {blob.id:#x}: extent {index} on page {page}")
        if blob.extents[index] == NULL:
            blob.extents[index] = extent_new(page)
            if blob.extents[index] == NULL:
                raise MemoryError
    return 0


cdef int set_chain(blob_t *blob, chain) except -1:
    cdef uint32_t i
    blob.chain = <uint32_t *> malloc(4 * (<uint64_t> len(chain) + 1))
    if blob.chain == NULL:
        raise MemoryError
    blob.chain_length = len(chain)
    for i in range(blob.chain_length):
        blob.chain[i] = chain[i]
    return 0


cdef int mark_page(blob_t *blob, uint32_t page, list marked) except -1:
    cdef int rc = allocator_mark(&blob.store.pages, page)
    if rc:
        what = "past the end" if rc == -ERANGE else "used twice"
        raise OSError(-rc, f"blob {blob.id:#x}: metadata page {page} is {what}")
    marked.append(page)
    return 0


cdef int mark_pages_of(blob_t *blob, blob_t *shared, list marked) except -1:
    cdef uint32_t i, page
    for i in range(blob.chain_length):
        mark_page(blob, blob.chain[i], marked)
    for i in range(blob.num_extents):
        page = map_extent_page(blob, i)
        if page == 0:
            continue
        if shared != NULL and i < shared.num_extents and map_extent_page(shared, i) == page:
            continue
        mark_page(blob, page, marked)
    return 0


cdef uint32_t next_own(blob_t *blob, uint32_t c) noexcept nogil:
    """The first cluster from c on that the blob owns; num_clusters if there is none."""
    while c < blob.num_clusters:
        if map_extent(blob, c // CLUSTERS_PER_EXTENT) == NULL:
            c = (c // CLUSTERS_PER_EXTENT + 1) * CLUSTERS_PER_EXTENT
        elif map_own(blob, c) == 0:
            c += 1
        else:
            return c
    return blob.num_clusters


cdef bint has_too(blob_t *shared, uint32_t c, uint32_t cluster) noexcept nogil:
    return shared != NULL and c < shared.num_clusters and map_own(shared, c) == cluster


cdef uint32_t mark_clusters_of(blob_t *blob, blob_t *shared) except? 0xFFFFFFFF:
    cdef uint32_t owned = 0
    cdef uint32_t c = next_own(blob, 0)
    cdef uint32_t cluster, undo
    cdef int rc
    while c < blob.num_clusters:
        cluster = map_own(blob, c)
        owned += 1
        if not has_too(shared, c, cluster):
            rc = -ERANGE
            if cluster >= blob.store.metadata_clusters:
                rc = allocator_mark(&blob.store.clusters, cluster)
            if rc:
                break
        c = next_own(blob, c + 1)
    else:
        return owned
    undo = next_own(blob, 0)
    while undo < c:
        if not has_too(shared, undo, map_own(blob, undo)):
            allocator_release(&blob.store.clusters, map_own(blob, undo))
        undo = next_own(blob, undo + 1)
    what = "used twice" if rc == -EEXIST else "not a data cluster of this store"
    raise OSError(
        -rc, f"blob {blob.id:#x}: its cluster {c} is on device cluster {cluster}, which is {what}"
    )
