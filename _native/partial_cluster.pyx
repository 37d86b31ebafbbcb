"""Clusters whose copy-on-write is not finished: copying is put off until somebody needs it."""

from libc.errno cimport EBADF, EIO, ENOMEM, ENOSPC, EOPNOTSUPP
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from lvolfs._native.allocator cimport allocator_release
from lvolfs._native.cluster_map cimport (
    EFFECTIVE_EXTERNAL,
    STRIPES,
    blob_get,
    blob_put,
    map_mark_dirty,
    map_resolve_below,
    map_set_own,
)
from lvolfs._native.device cimport (
    device_can_reserve,
    device_pread,
    device_pwrite,
    device_reserve,
    device_start_writeback,
    device_t,
    device_zero,
)
from lvolfs._native.faults cimport FAULT_COPY_FORGOTTEN, FAULT_FLUSH_LEAVES_PARTIAL
from lvolfs._native.scratch cimport scratch_get
from lvolfs._native.sync cimport (
    add32,
    gate_enter,
    gate_exit,
    load32,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    store32,
    sub32,
)

cdef enum:
    BLOCK = 4096                # what is copied or written as one; a cluster has a multiple
    WINDOW = 1 << 20            # bytes of the parent read at once
    # What a flush may find to copy: some tenths of a second of it.
    MOST_BYTES = 1 << 30
    MOST_CLUSTERS = 1 << 12


cdef inline bint is_written(const partial_t *partial, uint32_t block) noexcept nogil:
    return (partial.written[block // 64] >> (block % 64)) & 1


cdef inline uint64_t base_of(const blob_t *blob, const partial_t *partial) noexcept nogil:
    return partial.cluster * <uint64_t> blob.store.cluster_size


cdef uint64_t run_end(
    const partial_t *partial, uint64_t start, uint64_t end, bint *written
) noexcept nogil:
    """How far from `start` on, up to `end`, blocks are all written or all missing."""
    cdef uint32_t block = <uint32_t> (start // BLOCK)
    written[0] = is_written(partial, block)
    while True:
        block += 1
        if <uint64_t> block * BLOCK >= end:
            return end
        if is_written(partial, block) != written[0]:
            return <uint64_t> block * BLOCK


cdef int read_below(
    blob_t *blob, uint32_t c, uint64_t start, void *buf, uint64_t length
) noexcept nogil:
    """What the parent shows; it has been a cluster of this store since the partial one began."""
    cdef device_t *external = NULL
    cdef uint32_t where = map_resolve_below(blob, c, &external)
    if where >= <uint32_t> EFFECTIVE_EXTERNAL:
        return -EIO
    return device_pread(
        blob.store.dev, buf, length, where * <uint64_t> blob.store.cluster_size + start
    )


# -- the list

cdef partial_t *partial_find(blob_t *blob, uint32_t c) noexcept nogil:
    cdef partial_t *partial = blob.partials[c % STRIPES]
    while partial != NULL and partial.c != c:
        partial = partial.next
    return partial


cdef void unlink_and_free(blob_t *blob, partial_t *partial) noexcept nogil:
    cdef partial_t **at = &blob.partials[partial.c % STRIPES]
    while at[0] != partial:
        at = &at[0].next
    at[0] = partial.next
    free(partial)
    sub32(&blob.store.partial_clusters, 1)
    sub32(&blob.partial_count, 1)


cdef void publish(blob_t *blob, partial_t *partial) noexcept nogil:
    # In the map first: a reader who finds no partial cluster any more has to find it there.
    map_set_own(blob, partial.c, partial.cluster)
    map_mark_dirty(blob, partial.c)
    unlink_and_free(blob, partial)


cdef void give_up(blob_t *blob, partial_t *partial) noexcept nogil:
    sub32(&blob.owned, 1)
    unlink_and_free(blob, partial)


cdef void give_back(blob_t *blob, partial_t *partial) noexcept nogil:
    # No map has named it: it can be taken again at once.
    allocator_release(&blob.store.clusters, partial.cluster)
    give_up(blob, partial)


# -- one cluster

cdef bint partial_is_worth_it(blob_t *blob, uint32_t c, uint64_t length) noexcept nogil:
    cdef store_t *store = blob.store
    cdef device_t *external = NULL
    cdef blob_t *root = blob
    cdef uint32_t most = min(<uint32_t> MOST_CLUSTERS, <uint32_t> (MOST_BYTES // store.cluster_size))
    if length == 0 or length + BLOCK > store.cluster_size:
        return False
    if load32(&store.partial_holds) or load32(&store.partial_clusters) >= most:
        return False
    # A cluster that is copied from an external parent keeps its stripe for as long as that hangs,
    # and who completes the blob's partial clusters would wait for it: the flushes of everybody.
    while root.parent != NULL:
        root = root.parent
    if root.has_external:
        return False
    # Zeros are no work.
    return map_resolve_below(blob, c, &external) < <uint32_t> EFFECTIVE_EXTERNAL


cdef int copy_block(blob_t *blob, partial_t *partial, uint32_t block) noexcept nogil:
    """Before a write to a part of a block that is missing."""
    cdef uint8_t[4096] content
    cdef uint64_t start = <uint64_t> block * BLOCK
    cdef int rc
    if is_written(partial, block):
        return 0
    rc = read_below(blob, partial.c, start, content, BLOCK)
    return rc if rc else device_pwrite(
        blob.store.dev, content, BLOCK, base_of(blob, partial) + start
    )


cdef int partial_write(
    blob_t *blob, partial_t *partial, uint64_t start, const void *data, uint64_t length
) noexcept nogil:
    cdef uint64_t end = start + length
    cdef uint32_t first = <uint32_t> (start // BLOCK)
    cdef uint32_t last = <uint32_t> ((end - 1) // BLOCK)
    cdef uint32_t block
    cdef int rc = 0
    if start % BLOCK:
        rc = copy_block(blob, partial, first)
    if rc == 0 and end % BLOCK and not (last == first and start % BLOCK):
        rc = copy_block(blob, partial, last)
    if rc == 0 and data == NULL:
        rc = device_zero(blob.store.dev, base_of(blob, partial) + start, length)
    elif rc == 0:
        rc = device_pwrite(blob.store.dev, data, length, base_of(blob, partial) + start)
    if rc:
        # A block that was missing still shows the parent, whatever half of a write is there.
        return rc
    for block in range(first, last + 1):
        if not is_written(partial, block):
            partial.written[block // 64] |= (<uint64_t> 1) << (block % 64)
            partial.missing -= 1
    if partial.missing == 0:
        publish(blob, partial)
    return 0


cdef int partial_begin(
    blob_t *blob, uint32_t c, uint32_t cluster, uint64_t start, const void *data, uint64_t length
) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint64_t words = (cluster_size // BLOCK + 63) // 64
    cdef partial_t *partial
    # Now, when the writer can still be told.
    cdef int rc = device_reserve(blob.store.dev, cluster * cluster_size, cluster_size)
    if rc:
        return rc
    if not device_can_reserve(blob.store.dev):
        return -EOPNOTSUPP
    partial = <partial_t *> calloc(1, sizeof(partial_t) + words * 8)
    if partial == NULL:
        return -ENOMEM
    partial.c = c
    partial.cluster = cluster
    partial.missing = <uint32_t> (cluster_size // BLOCK)
    partial.next = blob.partials[c % STRIPES]
    blob.partials[c % STRIPES] = partial
    add32(&blob.owned, 1)
    add32(&blob.partial_count, 1)
    add32(&blob.store.partial_clusters, 1)
    rc = partial_write(blob, partial, start, data, length)
    if rc:
        give_up(blob, partial)
    return rc


cdef int partial_read(
    blob_t *blob, partial_t *partial, uint64_t start, void *buf, uint64_t length
) noexcept nogil:
    cdef uint8_t *at = <uint8_t *> buf
    cdef uint64_t end = start + length
    cdef uint64_t stop
    cdef bint written
    cdef int rc = 0
    while start < end and rc == 0:
        stop = run_end(partial, start, end, &written)
        if written:
            rc = device_pread(blob.store.dev, at, stop - start, base_of(blob, partial) + start)
        else:
            rc = read_below(blob, partial.c, start, at, stop - start)
        at += stop - start
        start = stop
    return rc


cdef int copy_missing(
    blob_t *blob, partial_t *partial, uint64_t start, uint64_t end, uint8_t *window
) noexcept nogil:
    """What is missing between two blocks that are."""
    cdef uint64_t first = start
    cdef uint64_t stop
    cdef bint written
    # All at once: a read of blocks that are not needed costs less than more reads. But a write may
    # have replaced just what cannot be read.
    cdef bint one_by_one = read_below(blob, partial.c, start, window, end - start) != 0
    cdef int rc = 0
    while start < end and rc == 0:
        stop = run_end(partial, start, end, &written)
        if one_by_one and not written:
            rc = read_below(blob, partial.c, start, window + (start - first), stop - start)
        if rc == 0 and not written:
            rc = device_pwrite(
                blob.store.dev, window + (start - first), stop - start,
                base_of(blob, partial) + start,
            )
        start = stop
    return rc


cdef int partial_complete(blob_t *blob, partial_t *partial) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint64_t start = 0
    cdef uint64_t end
    cdef uint8_t *window = <uint8_t *> scratch_get(min(<uint64_t> WINDOW, cluster_size))
    cdef int rc = 0
    if window == NULL:
        return -ENOMEM
    while start < cluster_size and rc == 0:
        end = min(start + WINDOW, cluster_size)
        while start < end and is_written(partial, <uint32_t> (start // BLOCK)):
            start += BLOCK
        while start < end and is_written(partial, <uint32_t> (end // BLOCK - 1)):
            end -= BLOCK
        if start < end and not blob.store.faults & FAULT_COPY_FORGOTTEN:
            rc = copy_missing(blob, partial, start, end, window)
        start = end if start < end else start
    if rc == 0:
        publish(blob, partial)
    return rc


# -- many

cdef bint is_lasting(int rc) noexcept nogil:
    return rc != 0 and rc != -ENOMEM and rc != -ENOSPC


cdef int complete_one(blob_t *blob, uint32_t c, uint32_t *cluster) noexcept nogil:
    """`cluster`: the device's, when it was completed here; 0 otherwise."""
    cdef pthread_mutex_t *stripe = &blob.stripe[c % STRIPES]
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef partial_t *partial
    cdef int rc = 0
    cluster[0] = 0
    pthread_mutex_lock(stripe)
    partial = partial_find(blob, c)
    if partial != NULL:
        cluster[0] = partial.cluster
        if load32(&blob.store.closed):
            rc = -EBADF
        elif load32(&blob.store.failed):
            rc = -EIO
        else:
            rc = partial_complete(blob, partial)
            if rc:
                partial.error = rc
            if is_lasting(rc):
                store32(&blob.failed, <uint32_t> (-rc))
    pthread_mutex_unlock(stripe)
    gate_exit(&blob.store.gate, shard)
    return rc


cdef int blob_complete_cluster(blob_t *blob, uint32_t c) noexcept nogil:
    cdef uint32_t cluster
    return complete_one(blob, c, &cluster) if load32(&blob.partial_count) else 0


cdef uint32_t *clusters_of(blob_t *blob, uint32_t stripe, uint32_t *count) noexcept nogil:
    """The partial ones of a stripe, to be freed; NULL: without memory, if there are any."""
    cdef uint32_t *found = NULL
    cdef partial_t *partial
    count[0] = 0
    pthread_mutex_lock(&blob.stripe[stripe])
    partial = blob.partials[stripe]
    while partial != NULL:
        count[0] += 1
        partial = partial.next
    if count[0]:
        found = <uint32_t *> malloc(4 * <uint64_t> count[0])
    if found != NULL:
        partial = blob.partials[stripe]
        count[0] = 0
        while partial != NULL:
            found[count[0]] = partial.c
            count[0] += 1
            partial = partial.next
    pthread_mutex_unlock(&blob.stripe[stripe])
    return found


cdef int blob_complete(blob_t *blob) noexcept nogil:
    cdef uint32_t *clusters
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint32_t stripe, count, cluster, i
    cdef int rc = 0
    cdef int failed
    if load32(&blob.partial_count) == 0 or blob.store.faults & FAULT_FLUSH_LEAVES_PARTIAL:
        return 0
    for stripe in range(STRIPES):
        clusters = clusters_of(blob, stripe, &count)
        if count and clusters == NULL:
            return rc if rc else -ENOMEM
        for i in range(count):
            failed = complete_one(blob, clusters[i], &cluster)
            if rc == 0:
                rc = failed
            # Outside of the gate, as it may wait; the flush that follows is that much shorter.
            if cluster and not failed:
                device_start_writeback(blob.store.dev, cluster * cluster_size, cluster_size)
        free(clusters)
    return rc


cdef int store_complete(store_t *store, bint again, blob_t *spared) noexcept nogil:
    cdef blob_t **blobs = NULL
    cdef blob_t *blob
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef int rc = 0
    cdef int failed
    if load32(&store.partial_clusters) == 0:
        return 0
    # The list stays for as long as it is gone through, but no longer: copying takes its time.
    pthread_mutex_lock(&store.commit_lock)
    blob = store.blobs
    while blob != NULL:
        count += 1
        blob = blob.next
    # One more, so that an empty list is no lack of memory.
    blobs = <blob_t **> malloc((<uint64_t> count + 1) * sizeof(blob_t *))
    count = 0
    blob = store.blobs
    while blobs != NULL and blob != NULL:
        if (blob != spared and load32(&blob.partial_count)
                and (again or not load32(&blob.failed))):
            blob_get(blob)
            blobs[count] = blob
            count += 1
        blob = blob.next
    pthread_mutex_unlock(&store.commit_lock)
    if blobs == NULL:
        return -ENOMEM
    for i in range(count):
        failed = blob_complete(blobs[i])
        if rc == 0:
            rc = failed
        blob_put(blobs[i])
    free(blobs)
    return rc


cdef void partials_hold(store_t *store) noexcept nogil:
    add32(&store.partial_holds, 1)


cdef void partials_allow(store_t *store) noexcept nogil:
    sub32(&store.partial_holds, 1)


cdef int end_stripe(blob_t *blob, uint32_t stripe) noexcept nogil:
    cdef partial_t *partial
    cdef int rc = 0
    pthread_mutex_lock(&blob.stripe[stripe])
    while blob.partials[stripe] != NULL:
        partial = blob.partials[stripe]
        # Not once more what has just failed: a broken device may take its time for that.
        rc = partial.error if is_lasting(partial.error) else partial_complete(blob, partial)
        if rc and not is_lasting(rc):
            break
        if rc:
            store32(&blob.failed, <uint32_t> (-rc))
            give_back(blob, partial)
            rc = 0
    pthread_mutex_unlock(&blob.stripe[stripe])
    return rc


cdef int partials_end(store_t *store, blob_t *spared) noexcept nogil:
    cdef blob_t *blob = store.blobs
    cdef uint32_t stripe
    cdef int rc = 0
    while blob != NULL and load32(&store.partial_clusters):
        for stripe in range(STRIPES if blob != spared and load32(&blob.partial_count) else 0):
            rc = end_stripe(blob, stripe)
            if rc:
                return rc
        blob = blob.next
    return 0


cdef void partials_drop(blob_t *blob) noexcept nogil:
    cdef uint32_t stripe
    for stripe in range(STRIPES if load32(&blob.partial_count) else 0):
        pthread_mutex_lock(&blob.stripe[stripe])
        while blob.partials[stripe] != NULL:
            give_back(blob, blob.partials[stripe])
        pthread_mutex_unlock(&blob.stripe[stripe])
