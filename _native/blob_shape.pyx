"""Changes of a blob's shape in memory: size, and whose the clusters are."""

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from lvolfs._native.allocator cimport (
    allocator_claim,
    allocator_claim_beyond,
    allocator_defer,
    allocator_release,
)
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    map_add_extent_page,
    map_forget_effective,
    map_mark_dirty,
    store_t,
)
from lvolfs._native.device cimport device_is_hole, device_zero
from lvolfs._native.sync cimport load32, store32


cdef uint32_t extents_of(uint32_t num_clusters) noexcept nogil:
    return (num_clusters + CLUSTERS_PER_EXTENT - 1) // CLUSTERS_PER_EXTENT


cdef uint32_t entries_of(blob_t *blob, uint32_t extent) noexcept nogil:
    """How many clusters extent page `extent` of the blob lists."""
    return min(<uint32_t> CLUSTERS_PER_EXTENT, blob.num_clusters - extent * CLUSTERS_PER_EXTENT)


cdef void mark_table(blob_t *blob) noexcept nogil:
    store32(&blob.table_dirty, 1)
    store32(&blob.map_dirty, 1)
    store32(&blob.store.dirty, 1)


# -- resize

cdef int set_room(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    """Larger arrays with the same content; num_clusters stays."""
    cdef uint32_t num_extents = extents_of(num_clusters)
    cdef uint32_t *clusters = <uint32_t *> calloc(<uint64_t> num_clusters + 1, 4)
    cdef uint32_t *pages = <uint32_t *> calloc(<uint64_t> num_extents + 1, 4)
    cdef uint8_t *dirty = <uint8_t *> calloc(<uint64_t> num_extents + 1, 1)
    if clusters == NULL or pages == NULL or dirty == NULL:
        free(clusters)
        free(pages)
        free(dirty)
        return -ENOMEM
    memcpy(clusters, blob.clusters, 4 * <uint64_t> blob.num_clusters)
    memcpy(pages, blob.extent_pages, 4 * <uint64_t> blob.num_extents)
    memcpy(dirty, blob.extent_dirty, blob.num_extents)
    free(blob.clusters)
    free(blob.extent_pages)
    free(blob.extent_dirty)
    blob.clusters = clusters
    blob.extent_pages = pages
    blob.extent_dirty = dirty
    return 0


cdef int claim_zeroed(blob_t *blob, uint32_t c) noexcept nogil:
    cdef store_t *store = blob.store
    cdef uint64_t cluster_size = store.cluster_size
    cdef uint32_t extent = c // CLUSTERS_PER_EXTENT
    cdef long cluster, page
    cdef int rc = 0
    if not blob.rle and blob.extent_pages[extent] == 0:
        page = allocator_claim_beyond(&store.pages, 1, load32(&store.page_reserve))
        if page < 0:
            return <int> page
        map_add_extent_page(blob, extent, <uint32_t> page)
    cluster = allocator_claim(&store.clusters, 1)
    if cluster < 0:
        return <int> cluster
    if not device_is_hole(store.dev, cluster * cluster_size, cluster_size):
        rc = device_zero(store.dev, cluster * cluster_size, cluster_size)
    if rc:
        allocator_release(&store.clusters, <uint32_t> cluster)
        return rc
    blob.clusters[c] = <uint32_t> cluster
    blob.owned += 1
    map_mark_dirty(blob, c)
    return 0


cdef void release_new(blob_t *blob, uint32_t first_cluster, uint32_t first_extent) noexcept nogil:
    """Undoes claim_zeroed for everything from there on."""
    cdef uint32_t c, extent
    for c in range(first_cluster, blob.num_clusters):
        if blob.clusters[c]:
            allocator_release(&blob.store.clusters, blob.clusters[c])
            blob.clusters[c] = 0
            blob.owned -= 1
    for extent in range(first_extent, blob.num_extents):
        if blob.extent_pages[extent]:
            allocator_release(&blob.store.pages, blob.extent_pages[extent])
            blob.extent_pages[extent] = 0
            blob.extent_dirty[extent] = 0


cdef int grow(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    cdef uint32_t old_clusters = blob.num_clusters
    cdef uint32_t old_extents = blob.num_extents
    cdef uint32_t c
    cdef int rc = set_room(blob, num_clusters)
    if rc:
        return rc
    blob.num_clusters = num_clusters
    blob.num_extents = extents_of(num_clusters)
    if not blob.thin:
        for c in range(old_clusters, num_clusters):
            rc = claim_zeroed(blob, c)
            if rc:
                release_new(blob, old_clusters, old_extents)
                blob.num_clusters = old_clusters
                blob.num_extents = old_extents
                return rc
    return 0


cdef void shrink(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    cdef uint32_t num_extents = extents_of(num_clusters)
    cdef uint32_t c, extent
    for c in range(num_clusters, blob.num_clusters):
        if blob.clusters[c]:
            allocator_defer(&blob.store.clusters, blob.clusters[c])
            blob.clusters[c] = 0
            blob.owned -= 1
    for extent in range(num_extents, blob.num_extents):
        if blob.extent_pages[extent]:
            allocator_defer(&blob.store.pages, blob.extent_pages[extent])
            blob.extent_pages[extent] = 0
        blob.extent_dirty[extent] = 0
    blob.num_clusters = num_clusters
    blob.num_extents = num_extents


cdef bint changes_last_page(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    """Whether the extent page at the smaller of the two ends gets another number of entries."""
    cdef uint32_t least = min(blob.num_clusters, num_clusters)
    return (
        not blob.rle
        and num_clusters != blob.num_clusters
        and least % CLUSTERS_PER_EXTENT != 0
        and blob.extent_pages[least // CLUSTERS_PER_EXTENT] != 0
    )


cdef int shape_resize(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    cdef store_t *store = blob.store
    cdef uint32_t extent = min(blob.num_clusters, num_clusters) // CLUSTERS_PER_EXTENT
    cdef long page = 0
    cdef int rc = 0
    # The page goes to a new place, so that the root page changes the size and the page at
    # once: neither size may ever be found with the other's page.
    if changes_last_page(blob, num_clusters):
        page = allocator_claim_beyond(&store.pages, 1, load32(&store.page_reserve))
        if page < 0:
            return <int> page
    map_forget_effective(store)
    if num_clusters > blob.num_clusters:
        rc = grow(blob, num_clusters)
    elif num_clusters < blob.num_clusters:
        shrink(blob, num_clusters)
    if rc:
        if page:
            allocator_release(&store.pages, <uint32_t> page)
        return rc
    if page:
        allocator_defer(&store.pages, blob.extent_pages[extent])
        map_add_extent_page(blob, extent, <uint32_t> page)
    mark_table(blob)
    return 0


cdef void shape_release_all(blob_t *blob) noexcept nogil:
    release_new(blob, 0, 0)
    blob.num_clusters = 0
    blob.num_extents = 0
    blob.map_dirty = 0
    blob.table_dirty = 0
    allocator_release(&blob.store.pages, <uint32_t> blob.id)


# -- snapshot

cdef int shape_swap(blob_t *a, blob_t *b) noexcept nogil:
    if a.num_clusters != b.num_clusters:
        return -EINVAL
    map_forget_effective(a.store)
    a.clusters, b.clusters = b.clusters, a.clusters
    a.extent_pages, b.extent_pages = b.extent_pages, a.extent_pages
    a.extent_dirty, b.extent_dirty = b.extent_dirty, a.extent_dirty
    a.map_dirty, b.map_dirty = b.map_dirty, a.map_dirty
    a.owned, b.owned = b.owned, a.owned
    a.rle, b.rle = b.rle, a.rle
    return 0


# -- merge

cdef bint has_to_give(blob_t *child, blob_t *parent, uint32_t extent) noexcept nogil:
    cdef uint32_t c = extent * CLUSTERS_PER_EXTENT
    cdef uint32_t end = min(c + CLUSTERS_PER_EXTENT, min(child.num_clusters, parent.num_clusters))
    while c < end:
        if child.clusters[c] == 0 and parent.clusters[c]:
            return True
        c += 1
    return False


cdef bint takes_page_over(blob_t *child, blob_t *parent, uint32_t extent) noexcept nogil:
    """Whether the parent's extent page says, as it is, what the child's would have to say."""
    return (
        not child.rle
        and not parent.rle
        and child.extent_pages[extent] == 0
        and extent < parent.num_extents
        and parent.extent_pages[extent] != 0
        and entries_of(child, extent) == entries_of(parent, extent)
    )


cdef int claim_merge_pages(blob_t *child, blob_t *parent, uint32_t *pages) noexcept nogil:
    cdef uint32_t extent, k
    cdef long page
    for extent in range(min(child.num_extents, parent.num_extents)):
        if child.rle or child.extent_pages[extent] or not has_to_give(child, parent, extent):
            continue
        if takes_page_over(child, parent, extent):
            continue
        page = allocator_claim_beyond(
            &child.store.pages, 1, load32(&child.store.page_reserve)
        )
        if page < 0:
            for k in range(extent):
                if pages[k]:
                    allocator_release(&child.store.pages, pages[k])
            return <int> page
        pages[extent] = <uint32_t> page
    return 0


cdef int shape_merge(blob_t *child, blob_t *parent) noexcept nogil:
    cdef uint32_t *pages = <uint32_t *> calloc(<uint64_t> child.num_extents + 1, 4)
    cdef uint32_t extent, c, end
    cdef bint taken
    cdef int rc
    if pages == NULL:
        return -ENOMEM
    rc = claim_merge_pages(child, parent, pages)
    if rc:
        free(pages)
        return rc
    map_forget_effective(child.store)
    for extent in range(min(child.num_extents, parent.num_extents)):
        if not has_to_give(child, parent, extent):
            continue
        taken = takes_page_over(child, parent, extent)
        if taken:
            child.extent_pages[extent] = parent.extent_pages[extent]
        elif pages[extent]:
            map_add_extent_page(child, extent, pages[extent])
        c = extent * CLUSTERS_PER_EXTENT
        end = min(c + CLUSTERS_PER_EXTENT, min(child.num_clusters, parent.num_clusters))
        while c < end:
            if child.clusters[c] == 0 and parent.clusters[c]:
                child.clusters[c] = parent.clusters[c]
                child.owned += 1
                if not taken:
                    map_mark_dirty(child, c)
            c += 1
    mark_table(child)
    free(pages)
    return 0


cdef void shape_drop_shared(blob_t *parent, blob_t *child) noexcept nogil:
    cdef uint32_t c, extent
    map_forget_effective(parent.store)
    for extent in range(min(child.num_extents, parent.num_extents)):
        if parent.extent_pages[extent] == child.extent_pages[extent]:
            parent.extent_pages[extent] = 0
            parent.extent_dirty[extent] = 0
    for c in range(min(child.num_clusters, parent.num_clusters)):
        if parent.clusters[c] and parent.clusters[c] == child.clusters[c]:
            parent.clusters[c] = 0
            parent.owned -= 1
            extent = c // CLUSTERS_PER_EXTENT
            if not parent.rle and parent.extent_pages[extent]:
                map_mark_dirty(parent, c)
    mark_table(parent)
