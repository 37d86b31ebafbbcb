"""Changes of a blob's shape in memory: size, and whose the clusters are."""

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from lvolfs._native.allocator cimport (
    allocator_claim,
    allocator_claim_beyond,
    allocator_defer,
    allocator_release,
    allocator_t,
)
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    extent_new,
    extent_t,
    extents_of,
    map_add_extent,
    map_claim_extent,
    map_drop_extent,
    map_extent_page,
    map_forget_effective,
    map_mark_dirty,
    map_move_extent,
    map_set_room,
    store_t,
)
from lvolfs._native.device cimport device_is_hole, device_zero
from lvolfs._native.faults cimport FAULT_MERGE_IN_PLACE
from lvolfs._native.lazy_array cimport lazy_array_free, lazy_array_new
from lvolfs._native.sync cimport add32, load32, store32, sub32


cdef uint32_t entries_of(blob_t *blob, uint32_t extent) noexcept nogil:
    """How many clusters extent page `extent` of the blob lists."""
    return min(<uint32_t> CLUSTERS_PER_EXTENT, blob.num_clusters - extent * CLUSTERS_PER_EXTENT)


cdef void mark_table(blob_t *blob) noexcept nogil:
    store32(&blob.table_dirty, 1)
    store32(&blob.map_dirty, 1)
    store32(&blob.store.dirty, 1)


# -- resize

cdef int claim_zeroed(blob_t *blob, uint32_t c) noexcept nogil:
    cdef store_t *store = blob.store
    cdef uint64_t cluster_size = store.cluster_size
    cdef uint32_t extent = c // CLUSTERS_PER_EXTENT
    cdef extent_t *added
    cdef long cluster
    cdef int rc = 0
    if blob.extents[extent] == NULL:
        rc = map_claim_extent(blob, &added)
        if rc:
            return rc
        map_add_extent(blob, extent, added)
    cluster = allocator_claim(&store.clusters, 1)
    if cluster < 0:
        return <int> cluster
    if not device_is_hole(store.dev, cluster * cluster_size, cluster_size):
        rc = device_zero(store.dev, cluster * cluster_size, cluster_size)
    if rc:
        allocator_release(&store.clusters, <uint32_t> cluster)
        return rc
    blob.extents[extent].clusters[c % CLUSTERS_PER_EXTENT] = <uint32_t> cluster
    add32(&blob.owned, 1)
    map_mark_dirty(blob, c)
    return 0


cdef void give_back(allocator_t *owner, uint32_t item, bint durable) noexcept nogil:
    if durable:
        allocator_defer(owner, item)
    else:
        allocator_release(owner, item)


cdef void give_up(
    blob_t *blob, uint32_t first_cluster, uint32_t first_extent, bint durable
) noexcept nogil:
    """Takes the clusters from `first_cluster` and the extent pages from `first_extent` on out of
    the map. What a durable map may name is free only after the next commit."""
    cdef uint32_t extent = first_cluster // CLUSTERS_PER_EXTENT
    cdef uint32_t i, cluster, page
    cdef extent_t *found
    while extent < blob.num_extents:
        found = blob.extents[extent]
        if found != NULL:
            for i in range(CLUSTERS_PER_EXTENT):
                cluster = found.clusters[i]
                if cluster and extent * CLUSTERS_PER_EXTENT + i >= first_cluster:
                    found.clusters[i] = 0
                    sub32(&blob.owned, 1)
                    give_back(&blob.store.clusters, cluster, durable)
            if extent >= first_extent:
                page = found.page
                map_drop_extent(blob, extent)
                if page:
                    give_back(&blob.store.pages, page, durable)
        extent += 1


cdef int grow(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    cdef uint32_t old_clusters = blob.num_clusters
    cdef uint32_t old_extents = blob.num_extents
    cdef uint32_t c
    cdef int rc = map_set_room(blob, extents_of(num_clusters))
    if rc:
        return rc
    store32(&blob.num_clusters, num_clusters)
    blob.num_extents = extents_of(num_clusters)
    if not blob.thin:
        for c in range(old_clusters, num_clusters):
            rc = claim_zeroed(blob, c)
            if rc:
                give_up(blob, old_clusters, old_extents, False)
                store32(&blob.num_clusters, old_clusters)
                blob.num_extents = old_extents
                return rc
    return 0


cdef void shrink(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    give_up(blob, num_clusters, extents_of(num_clusters), True)
    store32(&blob.num_clusters, num_clusters)
    blob.num_extents = extents_of(num_clusters)


cdef bint changes_last_page(blob_t *blob, uint32_t num_clusters) noexcept nogil:
    """Whether the extent page at the smaller of the two ends gets another number of entries."""
    cdef uint32_t least = min(blob.num_clusters, num_clusters)
    return (
        not blob.rle
        and num_clusters != blob.num_clusters
        and least % CLUSTERS_PER_EXTENT != 0
        and blob.extents[least // CLUSTERS_PER_EXTENT] != NULL
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
        allocator_defer(&store.pages, blob.extents[extent].page)
        map_move_extent(blob, extent, <uint32_t> page)
    mark_table(blob)
    return 0


cdef void shape_release_all(blob_t *blob) noexcept nogil:
    give_up(blob, 0, 0, False)
    store32(&blob.num_clusters, 0)
    blob.num_extents = 0
    blob.map_dirty = 0
    blob.table_dirty = 0
    allocator_release(&blob.store.pages, <uint32_t> blob.id)


# -- snapshot

cdef int shape_swap(blob_t *a, blob_t *b) noexcept nogil:
    cdef uint32_t owned = a.owned
    if a.num_clusters != b.num_clusters:
        return -EINVAL
    map_forget_effective(a.store)
    a.extent_room, b.extent_room = b.extent_room, a.extent_room
    a.extents, b.extents = b.extents, a.extents
    a.extent_dirty, b.extent_dirty = b.extent_dirty, a.extent_dirty
    a.map_dirty, b.map_dirty = b.map_dirty, a.map_dirty
    store32(&a.owned, b.owned)
    store32(&b.owned, owned)
    a.rle, b.rle = b.rle, a.rle
    return 0


# -- merge

cdef uint32_t common_end(blob_t *child, blob_t *parent, uint32_t extent) noexcept nogil:
    """How many entries of the extent both blobs have."""
    return min(entries_of(child, extent), entries_of(parent, extent))


cdef bint has_to_give(blob_t *child, blob_t *parent, uint32_t extent) noexcept nogil:
    """Whether the parent has a cluster there that the child lacks."""
    cdef extent_t *ours = child.extents[extent]
    cdef extent_t *theirs = parent.extents[extent]
    cdef uint32_t i
    if theirs == NULL:
        return False
    for i in range(common_end(child, parent, extent)):
        if theirs.clusters[i] and (ours == NULL or ours.clusters[i] == 0):
            return True
    return False


cdef bint gives_its_page(blob_t *child, blob_t *parent, uint32_t extent) noexcept nogil:
    """Whether the parent's extent page says, as it is, what the child's would have to say."""
    return (
        not child.rle
        and not parent.rle
        and child.extents[extent] == NULL
        and entries_of(child, extent) == entries_of(parent, extent)
    )


cdef void forget_fresh(blob_t *child, blob_t *parent, extent_t **fresh, uint32_t end) noexcept nogil:
    """Undoes make_fresh for the extents before `end`."""
    cdef uint32_t extent
    for extent in range(end):
        if fresh[extent] != NULL:
            if fresh[extent].page and fresh[extent].page != map_extent_page(parent, extent):
                allocator_release(&child.store.pages, fresh[extent].page)
            free(fresh[extent])


cdef bint stays_in_place(blob_t *child, uint32_t extent) noexcept nogil:
    return child.extents[extent] != NULL and (
        child.rle or child.store.faults & FAULT_MERGE_IN_PLACE != 0
    )


cdef int claim_fresh(blob_t *child, extent_t **added) noexcept nogil:
    """map_claim_extent, with one page more: merging is what gives pages back."""
    cdef uint32_t reserve = load32(&child.store.page_reserve)
    cdef long page = 0
    if not child.rle:
        page = allocator_claim_beyond(&child.store.pages, 1, reserve - 1 if reserve else 0)
        if page < 0:
            return <int> page
    added[0] = extent_new(<uint32_t> page)
    if added[0] == NULL:
        if page:
            allocator_release(&child.store.pages, <uint32_t> page)
        return -ENOMEM
    return 0


cdef int make_fresh(blob_t *child, blob_t *parent, extent_t **fresh) noexcept nogil:
    """What the child gets: all that can fail in a merge.

    Of extents that it has, only the new page counts. It changes none in place: clusters of the
    parent's must not be found in its map before its root has another parent.
    """
    cdef uint32_t extent
    cdef int rc = 0
    for extent in range(min(child.num_extents, parent.num_extents)):
        if stays_in_place(child, extent) or not has_to_give(child, parent, extent):
            continue
        if gives_its_page(child, parent, extent):
            fresh[extent] = extent_new(parent.extents[extent].page)
            if fresh[extent] == NULL:
                rc = -ENOMEM
        else:
            rc = claim_fresh(child, &fresh[extent])
        if rc:
            forget_fresh(child, parent, fresh, extent)
            return rc
    return 0


cdef void merge_extent(blob_t *child, blob_t *parent, uint32_t extent, bint as_it_is) noexcept nogil:
    cdef extent_t *ours = child.extents[extent]
    cdef extent_t *theirs = parent.extents[extent]
    cdef uint32_t i
    for i in range(common_end(child, parent, extent)):
        if ours.clusters[i] == 0 and theirs.clusters[i]:
            ours.clusters[i] = theirs.clusters[i]
            add32(&child.owned, 1)
            if not as_it_is:
                map_mark_dirty(child, extent * CLUSTERS_PER_EXTENT)


cdef int shape_merge(blob_t *child, blob_t *parent) noexcept nogil:
    cdef size_t size = child.extent_room * sizeof(extent_t *)
    cdef extent_t **fresh = <extent_t **> lazy_array_new(size)
    cdef uint32_t extent
    cdef bint as_it_is
    cdef int rc = -ENOMEM if fresh == NULL else make_fresh(child, parent, fresh)
    if rc:
        lazy_array_free(fresh, size)
        return rc
    map_forget_effective(child.store)
    for extent in range(min(child.num_extents, parent.num_extents)):
        if not has_to_give(child, parent, extent):
            continue
        as_it_is = child.extents[extent] == NULL and gives_its_page(child, parent, extent)
        if as_it_is:
            child.extents[extent] = fresh[extent]
        elif child.extents[extent] == NULL:
            map_add_extent(child, extent, fresh[extent])
        elif fresh[extent] != NULL:
            allocator_defer(&child.store.pages, child.extents[extent].page)
            map_move_extent(child, extent, fresh[extent].page)
            free(fresh[extent])
        merge_extent(child, parent, extent, as_it_is)
    mark_table(child)
    lazy_array_free(fresh, size)
    return 0


cdef void drop_shared_extent(blob_t *parent, blob_t *child, uint32_t extent) noexcept nogil:
    cdef extent_t *theirs = parent.extents[extent]
    cdef extent_t *ours = child.extents[extent]
    cdef bint dirty = False
    cdef uint32_t i
    if theirs == NULL or ours == NULL:
        return
    for i in range(CLUSTERS_PER_EXTENT):
        if theirs.clusters[i] and theirs.clusters[i] == ours.clusters[i]:
            theirs.clusters[i] = 0
            sub32(&parent.owned, 1)
            dirty = True
    if not parent.rle and theirs.page == ours.page:
        # One page says the same of both, unless somebody has made it up.
        for i in range(CLUSTERS_PER_EXTENT):
            sub32(&parent.owned, theirs.clusters[i] != 0)
        map_drop_extent(parent, extent)
    elif dirty and not parent.rle:
        map_mark_dirty(parent, extent * CLUSTERS_PER_EXTENT)


cdef void shape_drop_shared(blob_t *parent, blob_t *child) noexcept nogil:
    cdef uint32_t extent
    map_forget_effective(parent.store)
    for extent in range(min(child.num_extents, parent.num_extents)):
        drop_shared_extent(parent, child, extent)
    mark_table(parent)
