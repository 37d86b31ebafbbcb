"""What is where: the in-memory form of a store and of its blobs, and the look-up."""

from libc.errno cimport ENXIO
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from lvolfs._native.device cimport device_t
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
    sub32,
)


cdef blob_t *blob_new(store_t *store, uint64_t blob_id, uint32_t num_clusters) noexcept nogil:
    """A blob with an empty map and one reference, or NULL; not on the store's list."""
    cdef uint32_t i
    cdef blob_t *blob = <blob_t *> calloc(1, sizeof(blob_t))
    if blob == NULL:
        return NULL
    blob.store = store
    blob.id = blob_id
    blob.num_clusters = num_clusters
    blob.num_extents = (num_clusters + CLUSTERS_PER_EXTENT - 1) // CLUSTERS_PER_EXTENT
    # One more than needed: calloc(0) may be NULL.
    blob.clusters = <uint32_t *> calloc(num_clusters + 1, 4)
    blob.extent_pages = <uint32_t *> calloc(blob.num_extents + 1, 4)
    blob.extent_dirty = <uint8_t *> calloc(blob.num_extents + 1, 1)
    blob.refs = 1
    pthread_mutex_init(&blob.extent_lock, NULL)
    for i in range(STRIPES):
        pthread_mutex_init(&blob.stripe[i], NULL)
    if blob.clusters == NULL or blob.extent_pages == NULL or blob.extent_dirty == NULL:
        blob_put(blob)
        return NULL
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
    free(blob.clusters)
    free(blob.effective)
    free(blob.extent_pages)
    free(blob.extent_dirty)
    free(blob.chain)
    free(blob.head)
    free(blob.checksums)
    free(blob)


cdef void map_mark_dirty(blob_t *blob, uint32_t c) noexcept nogil:
    # The order matters to a commit that captures meanwhile: it clears these flags from the
    # outside in, and reads the map after that.
    if blob.rle:
        store32(&blob.table_dirty, 1)
    else:
        store8(&blob.extent_dirty[c // CLUSTERS_PER_EXTENT], 1)
    store32(&blob.map_dirty, 1)
    store32(&blob.store.dirty, 1)


cdef void map_add_extent_page(blob_t *blob, uint32_t extent, uint32_t page) noexcept nogil:
    # Dirty before it can be seen: a commit that puts the page into the extent table writes
    # the page itself, too.
    store8(&blob.extent_dirty[extent], 1)
    store32(&blob.extent_pages[extent], page)
    store32(&blob.table_dirty, 1)
    store32(&blob.map_dirty, 1)
    store32(&blob.store.dirty, 1)


cdef void map_forget_effective(store_t *store) noexcept nogil:
    cdef blob_t *blob = store.blobs
    while blob != NULL:
        free(blob.effective)
        blob.effective = NULL
        blob = blob.next


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
        cluster = load32(&blob.clusters[c])
        if cluster:
            return cluster
    if blob.has_external:
        external[0] = blob.external
        return EFFECTIVE_EXTERNAL
    return EFFECTIVE_ZERO


cdef uint32_t map_resolve_below(blob_t *blob, uint32_t c, device_t **external) noexcept nogil:
    cdef uint32_t found, depth
    cdef uint32_t *effective
    if blob.parent == NULL and not blob.has_external:
        return EFFECTIVE_ZERO
    effective = <uint32_t *> load_pointer(<void **> &blob.effective)
    if effective != NULL:
        found = load32(&effective[c])
        if found != EFFECTIVE_UNKNOWN and found != EFFECTIVE_EXTERNAL:
            return found
    found = walk_ancestors(blob, c, external, &depth)
    if depth > 1:
        if effective == NULL:
            effective = <uint32_t *> calloc(blob.num_clusters, 4)
            if effective == NULL:
                return found
            if not cas_pointer(<void **> &blob.effective, NULL, effective):
                free(effective)
                effective = <uint32_t *> load_pointer(<void **> &blob.effective)
        store32(&effective[c], found)
    return found


cdef uint32_t map_resolve(blob_t *blob, uint32_t c, device_t **external) noexcept nogil:
    cdef uint32_t own = load32(&blob.clusters[c])
    if own:
        return own
    return map_resolve_below(blob, c, external)


cdef long map_seek(blob_t *blob, uint64_t offset, bint data) noexcept nogil:
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef uint32_t cluster_size = blob.store.cluster_size
    cdef uint64_t size = blob_size(blob)
    cdef device_t *external = NULL
    cdef uint32_t c
    cdef long found = -ENXIO
    if offset < size:
        c = <uint32_t> (offset // cluster_size)
        while c < blob.num_clusters:
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
    cdef uint32_t i
    memset(bits, 0, (count + 7) // 8)
    for i in range(count):
        if first + i >= blob.num_clusters:
            break
        if load32(&blob.clusters[first + i]):
            bits[i // 8] |= <uint8_t> (1 << (i % 8))
            owned += 1
    gate_exit(&blob.store.gate, shard)
    return owned
