"""What is where: the in-memory form of a store and of its blobs, and the look-up."""

from libc.errno cimport ENOMEM, ENXIO
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from lvolfs._native.allocator cimport allocator_claim_beyond, allocator_release
from lvolfs._native.device cimport device_t
from lvolfs._native.lazy_array cimport lazy_array_free, lazy_array_new
from lvolfs._native.sync cimport (
    add32,
    cas_pointer,
    gate_enter,
    gate_exit,
    load32,
    load_pointer,
    pthread_mutex_destroy,
    pthread_mutex_init,
    store8,
    store32,
    store_pointer,
    sub32,
)

# `effective` of extents in which no ancestor has anything: EFFECTIVE_ZERO throughout.
cdef uint32_t[CLUSTERS_PER_EXTENT] nothing_below
memset(nothing_below, 0xFF, sizeof(nothing_below))


# -- blobs and their extents

cdef blob_t *blob_new(store_t *store, uint64_t blob_id, uint32_t num_clusters) noexcept nogil:
    """A blob with an empty map and one reference, or NULL; not on the store's list."""
    cdef uint32_t i
    cdef blob_t *blob = <blob_t *> calloc(1, sizeof(blob_t))
    if blob == NULL:
        return NULL
    blob.store = store
    blob.id = blob_id
    blob.refs = 1
    pthread_mutex_init(&blob.extent_lock, NULL)
    for i in range(STRIPES):
        pthread_mutex_init(&blob.stripe[i], NULL)
    if map_set_room(blob, extents_of(num_clusters)):
        blob_put(blob)
        return NULL
    blob.num_clusters = num_clusters
    blob.num_extents = extents_of(num_clusters)
    return blob


cdef void blob_get(blob_t *blob) noexcept nogil:
    add32(&blob.refs, 1)


cdef void blob_put(blob_t *blob) noexcept nogil:
    cdef uint32_t i
    if sub32(&blob.refs, 1) != 1:
        return
    pthread_mutex_destroy(&blob.extent_lock)
    for i in range(STRIPES):
        pthread_mutex_destroy(&blob.stripe[i])
    free_partials(blob)
    forget_effective(blob)
    for i in range(blob.extent_room):
        free(blob.extents[i])
    free_room(blob)
    free(blob.chain)
    free(blob.head)
    free(blob.checksums)
    free(blob)


cdef void free_partials(blob_t *blob) noexcept nogil:
    """There are some only after a last flush that failed."""
    cdef partial_t *partial
    cdef uint32_t i
    for i in range(STRIPES):
        while blob.partials[i] != NULL:
            partial = blob.partials[i]
            blob.partials[i] = partial.next
            free(partial)
            sub32(&blob.store.partial_clusters, 1)


cdef void free_room(blob_t *blob) noexcept nogil:
    lazy_array_free(blob.extents, blob.extent_room * sizeof(extent_t *))
    lazy_array_free(blob.extent_dirty, blob.extent_room)


cdef int map_set_room(blob_t *blob, uint32_t num_extents) noexcept nogil:
    cdef uint32_t room = (num_extents + 8) & ~<uint32_t> 7
    cdef extent_t **extents = <extent_t **> lazy_array_new(room * sizeof(extent_t *))
    cdef uint8_t *dirty = <uint8_t *> lazy_array_new(room)
    cdef uint32_t i
    if extents == NULL or dirty == NULL:
        lazy_array_free(extents, room * sizeof(extent_t *))
        lazy_array_free(dirty, room)
        return -ENOMEM
    # Only what is there is written: the rest takes no memory.
    for i in range(min(blob.num_extents, num_extents)):
        if blob.extents[i] != NULL:
            extents[i] = blob.extents[i]
        if blob.extent_dirty[i]:
            dirty[i] = blob.extent_dirty[i]
    free_room(blob)
    blob.extents = extents
    blob.extent_dirty = dirty
    blob.extent_room = room
    return 0


cdef extent_t *extent_new(uint32_t page) noexcept nogil:
    cdef extent_t *extent = <extent_t *> calloc(1, sizeof(extent_t))
    if extent != NULL:
        extent.page = page
    return extent


cdef int map_claim_extent(blob_t *blob, extent_t **added) noexcept nogil:
    cdef store_t *store = blob.store
    cdef long page = 0
    if not blob.rle:
        page = allocator_claim_beyond(&store.pages, 1, load32(&store.page_reserve))
        if page < 0:
            return <int> page
    added[0] = extent_new(<uint32_t> page)
    if added[0] == NULL:
        if page:
            allocator_release(&store.pages, <uint32_t> page)
        return -ENOMEM
    return 0


cdef void mark_extent(blob_t *blob, uint32_t extent) noexcept nogil:
    # The order matters to a commit that captures meanwhile: it clears these flags from the
    # outside in, and reads the map after that.
    if blob.rle:
        store32(&blob.table_dirty, 1)
    else:
        store8(&blob.extent_dirty[extent], 1)
    store32(&blob.map_dirty, 1)
    store32(&blob.store.dirty, 1)


cdef void map_mark_dirty(blob_t *blob, uint32_t c) noexcept nogil:
    mark_extent(blob, c // CLUSTERS_PER_EXTENT)


cdef void map_add_extent(blob_t *blob, uint32_t extent, extent_t *added) noexcept nogil:
    # Dirty before it can be seen: a commit that puts the page into the extent table writes
    # the page itself, too.
    if not blob.rle:
        store8(&blob.extent_dirty[extent], 1)
    store_pointer(<void **> &blob.extents[extent], added)
    if not blob.rle:
        store32(&blob.table_dirty, 1)
        store32(&blob.map_dirty, 1)
        store32(&blob.store.dirty, 1)


cdef void map_move_extent(blob_t *blob, uint32_t extent, uint32_t page) noexcept nogil:
    store8(&blob.extent_dirty[extent], 1)
    store32(&blob.extents[extent].page, page)
    store32(&blob.table_dirty, 1)
    store32(&blob.map_dirty, 1)
    store32(&blob.store.dirty, 1)


cdef void map_drop_extent(blob_t *blob, uint32_t extent) noexcept nogil:
    free(blob.extents[extent])
    # What was never written stays without memory.
    if blob.extents[extent] != NULL:
        blob.extents[extent] = NULL
    if blob.extent_dirty[extent]:
        blob.extent_dirty[extent] = 0


# -- what ancestors show

cdef void forget_effective(blob_t *blob) noexcept nogil:
    cdef uint32_t i
    if blob.effective == NULL:
        return
    for i in range(blob.extent_room):
        if blob.effective[i] != nothing_below:
            free(blob.effective[i])
    lazy_array_free(blob.effective, blob.extent_room * sizeof(uint32_t *))
    blob.effective = NULL
    sub32(&blob.store.effective_maps, 1)


cdef void map_forget_effective(store_t *store) noexcept nogil:
    cdef blob_t *blob = store.blobs
    while blob != NULL and load32(&store.effective_maps):
        forget_effective(blob)
        blob = blob.next


cdef bint ancestors_have_nothing(blob_t *blob, uint32_t extent) noexcept nogil:
    while blob.parent != NULL:
        blob = blob.parent
        if extent >= blob.num_extents:
            return True
        if map_extent(blob, extent) != NULL:
            return False
    return not blob.has_external


cdef bint map_shows_nothing(blob_t *blob, uint32_t extent) noexcept nogil:
    return map_extent(blob, extent) == NULL and ancestors_have_nothing(blob, extent)


cdef uint32_t walk_ancestors(
    blob_t *blob, uint32_t c, device_t **external, uint32_t *depth
) noexcept nogil:
    cdef uint32_t cluster
    depth[0] = 0
    while True:
        if blob.parent == NULL:
            break
        blob = blob.parent
        depth[0] += 1
        if c >= blob.num_clusters:
            return EFFECTIVE_ZERO
        cluster = map_own(blob, c)
        if cluster:
            return cluster
    if blob.has_external:
        external[0] = blob.external
        return EFFECTIVE_EXTERNAL
    return EFFECTIVE_ZERO


cdef void remember(blob_t *blob, uint32_t c, uint32_t found) noexcept nogil:
    """Keeps what was found far away. Without memory it is found again each time."""
    cdef uint32_t extent = c // CLUSTERS_PER_EXTENT
    cdef size_t size = blob.extent_room * sizeof(uint32_t *)
    cdef uint32_t **effective = <uint32_t **> load_pointer(<void **> &blob.effective)
    cdef uint32_t *known
    if effective == NULL:
        effective = <uint32_t **> lazy_array_new(size)
        if effective == NULL:
            return
        if cas_pointer(<void **> &blob.effective, NULL, effective):
            add32(&blob.store.effective_maps, 1)
        else:
            lazy_array_free(effective, size)
            effective = <uint32_t **> load_pointer(<void **> &blob.effective)
    known = <uint32_t *> load_pointer(<void **> &effective[extent])
    if known == NULL:
        if found == <uint32_t> EFFECTIVE_ZERO and ancestors_have_nothing(blob, extent):
            known = nothing_below
        else:
            known = <uint32_t *> calloc(CLUSTERS_PER_EXTENT, 4)
        if known == NULL:
            return
        if not cas_pointer(<void **> &effective[extent], NULL, known):
            if known != nothing_below:
                free(known)
            known = <uint32_t *> load_pointer(<void **> &effective[extent])
    if known != nothing_below:
        store32(&known[c % CLUSTERS_PER_EXTENT], found)


cdef uint32_t map_resolve_below(blob_t *blob, uint32_t c, device_t **external) noexcept nogil:
    cdef uint32_t found, depth
    cdef uint32_t **effective
    cdef uint32_t *known
    if blob.parent == NULL and not blob.has_external:
        return EFFECTIVE_ZERO
    effective = <uint32_t **> load_pointer(<void **> &blob.effective)
    if effective != NULL:
        known = <uint32_t *> load_pointer(<void **> &effective[c // CLUSTERS_PER_EXTENT])
        if known != NULL:
            found = load32(&known[c % CLUSTERS_PER_EXTENT])
            if found != EFFECTIVE_UNKNOWN and found != EFFECTIVE_EXTERNAL:
                return found
    found = walk_ancestors(blob, c, external, &depth)
    if depth > 1:
        remember(blob, c, found)
    return found


cdef uint32_t map_resolve(blob_t *blob, uint32_t c, device_t **external) noexcept nogil:
    cdef uint32_t own = map_own(blob, c)
    if own:
        return own
    return map_resolve_below(blob, c, external)


# -- questions about ranges

cdef long map_seek(blob_t *blob, uint64_t offset, bint data) noexcept nogil:
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef uint32_t cluster_size = blob.store.cluster_size
    cdef uint64_t size = blob_size(blob)
    cdef device_t *external = NULL
    cdef uint32_t c, extent
    cdef uint32_t looked_at = 0xFFFFFFFF
    cdef long found = -ENXIO
    if offset < size:
        c = <uint32_t> (offset // cluster_size)
        while c < blob.num_clusters:
            extent = c // CLUSTERS_PER_EXTENT
            if data and extent != looked_at:
                looked_at = extent
                if map_shows_nothing(blob, extent):
                    c = (extent + 1) * CLUSTERS_PER_EXTENT
                    continue
            if (map_resolve(blob, c, &external) != EFFECTIVE_ZERO) == data:
                found = <long> max(offset, <uint64_t> c * cluster_size)
                break
            c += 1
        if found < 0 and not data:
            found = <long> size      # there is always a hole at the end
    gate_exit(&blob.store.gate, shard)
    return found


cdef uint32_t map_fragmap(
    blob_t *blob, uint32_t first, uint32_t count, uint8_t *bits
) noexcept nogil:
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef uint32_t owned = 0
    cdef uint32_t i = 0
    memset(bits, 0, (count + 7) // 8)
    while i < count and first + i < blob.num_clusters:
        if map_extent(blob, (first + i) // CLUSTERS_PER_EXTENT) == NULL:
            i += CLUSTERS_PER_EXTENT - (first + i) % CLUSTERS_PER_EXTENT
            continue
        if map_own(blob, first + i):
            bits[i // 8] |= <uint8_t> (1 << (i % 8))
            owned += 1
        i += 1
    gate_exit(&blob.store.gate, shard)
    return owned
