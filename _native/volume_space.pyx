"""Which clusters a blob owns, by range: given up, taken, overwritten with zeros."""

from libc.errno cimport ENOSPC, EROFS
from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.allocator cimport allocator_defer, allocator_release
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    EFFECTIVE_ZERO,
    STRIPES,
    map_extent,
    map_mark_dirty,
    map_own,
    map_resolve_below,
    map_set_own,
    map_shows_nothing,
    partial_t,
    store_t,
)
from lvolfs._native.commit cimport store_flush
from lvolfs._native.device cimport device_t
from lvolfs._native.faults cimport (
    COMMIT_IN_RELEASE,
    FAULT_FREE_BEFORE_MAP,
    FAULT_REUSE_EARLY,
)
from lvolfs._native.io_stats cimport io_stat_end, io_ticks
from lvolfs._native.partial_cluster cimport blob_complete_cluster, partial_find, partial_write
from lvolfs._native.sync cimport (
    gate_close,
    gate_enter,
    gate_exit,
    gate_is_mine,
    gate_open,
    load32,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    store32,
    sub32,
)
from lvolfs._native.volume_io cimport (
    check_range,
    note_lost_write,
    worth_retrying,
    write_first,
    write_owned,
)


cdef bint shows_nothing(blob_t *blob, uint64_t offset) noexcept nogil:
    """Whether the extent around `offset` holds zeros alone: most of a large thin lvol does."""
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint32_t extent = <uint32_t> (offset // cluster_size // CLUSTERS_PER_EXTENT)
    return map_shows_nothing(blob, extent)


cdef int zero_piece(
    blob_t *blob, uint32_t c, uint64_t within, uint64_t piece
) noexcept nogil:
    cdef device_t *external = NULL
    cdef uint32_t own = map_own(blob, c)
    if own:
        return write_owned(blob, own, within, NULL, piece)
    if map_resolve_below(blob, c, &external) == <uint32_t> EFFECTIVE_ZERO:
        return 0
    return write_first(blob, c, within, NULL, piece)


cdef int blob_write_zeroes(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint64_t within, piece
    cdef uint32_t shard
    cdef int rc = 0
    # A gate passage per cluster: a range of terabytes must not hold up a snapshot.
    while True:
        shard = gate_enter(&blob.store.gate)
        rc = check_range(blob, offset, length, True)
        within = offset % cluster_size
        piece = min(length, cluster_size - within)
        if rc == 0 and piece and shows_nothing(blob, offset):
            piece = cluster_size * CLUSTERS_PER_EXTENT
            piece = min(length, piece - offset % piece)
        elif rc == 0 and piece:
            rc = zero_piece(blob, <uint32_t> (offset // cluster_size), within, piece)
        gate_exit(&blob.store.gate, shard)
        if rc == -ENOSPC and worth_retrying(blob.store):
            continue
        if rc:
            return note_lost_write(blob, rc)
        offset += piece
        length -= piece
        if length == 0:
            return 0


cdef int release_as_planted(blob_t *blob, uint32_t c, uint32_t own) noexcept nogil:
    """release_owned for tests: with a commit in the middle of it, or a mistake."""
    cdef store_t *store = blob.store
    cdef int rc = 0
    if store.faults & FAULT_FREE_BEFORE_MAP:
        rc = allocator_defer(&store.clusters, own)
        store32(&store.dirty, 1)
        if rc == 0:
            rc = store_flush(store)
    map_set_own(blob, c, 0)
    map_mark_dirty(blob, c)
    sub32(&blob.owned, 1)
    if store.faults & FAULT_FREE_BEFORE_MAP:
        return rc
    if store.faults & FAULT_REUSE_EARLY:
        allocator_release(&store.clusters, own)
        return 0
    if store.faults & COMMIT_IN_RELEASE:
        rc = store_flush(store)
    if rc == 0:
        rc = allocator_defer(&store.clusters, own)
        store32(&store.dirty, 1)
    return rc


cdef int release_owned(blob_t *blob, uint32_t c) noexcept nogil:
    """Gives a cluster up; the gate is closed, so nobody is reading or writing it."""
    cdef uint32_t own = map_own(blob, c)
    cdef int rc
    if own == 0:
        return 0
    if blob.store.faults:
        return release_as_planted(blob, c, own)
    # Out of the map before it can be taken for free: a commit takes what is to be freed first,
    # and then captures the maps.
    map_set_own(blob, c, 0)
    map_mark_dirty(blob, c)
    rc = allocator_defer(&blob.store.clusters, own)
    if rc:
        map_set_own(blob, c, own)
        map_mark_dirty(blob, c)
        return rc
    # Once more: a commit in between has taken the mark, but not the cluster.
    store32(&blob.store.dirty, 1)
    sub32(&blob.owned, 1)
    return 0


cdef bint may_be_freed(blob_t *blob, uint32_t c) noexcept nogil:
    cdef device_t *external = NULL
    return (
        blob.thin
        and map_own(blob, c) != 0
        and map_resolve_below(blob, c, &external) == <uint32_t> EFFECTIVE_ZERO
    )


cdef int release_range(blob_t *blob, uint32_t first, uint32_t end) noexcept nogil:
    """Frees what may be freed of clusters first..end-1, a thousand at a time."""
    cdef store_t *store = blob.store
    cdef bint mine = gate_is_mine(&store.gate)
    cdef uint32_t c = first
    cdef uint32_t stop, shard
    cdef bint some
    cdef int rc = 0
    while c < end and rc == 0:
        stop = min(end, c + 1024)
        # Closing the gate drains all requests in flight: not for nothing.
        some = False
        shard = gate_enter(&store.gate)
        rc = check_range(blob, <uint64_t> c * store.cluster_size, 0, True)
        while rc == 0 and c < min(stop, blob.num_clusters):
            if map_extent(blob, c // CLUSTERS_PER_EXTENT) == NULL:
                c = (c // CLUSTERS_PER_EXTENT + 1) * CLUSTERS_PER_EXTENT
                continue
            if may_be_freed(blob, c):
                some = True
                break
            c += 1
        gate_exit(&store.gate, shard)
        if rc or not some:
            c = stop
            continue
        if not mine:
            gate_close(&store.gate)
        while rc == 0 and c < min(stop, blob.num_clusters):
            if may_be_freed(blob, c):
                rc = release_owned(blob, c)
            c += 1
        if not mine:
            gate_open(&store.gate)
        c = stop
    return rc


cdef int unmap_range(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef int rc = check_range(blob, offset, length, True)
    cdef uint64_t first, end
    gate_exit(&blob.store.gate, shard)
    if rc:
        return rc
    first = (offset + cluster_size - 1) // cluster_size
    end = (offset + length) // cluster_size
    if end > first:
        rc = release_range(blob, <uint32_t> first, <uint32_t> end)
    # What could not be freed - edges, clusters over a parent's data - is zeroed. For freed
    # and never written clusters this finds nothing to do.
    if rc == 0:
        rc = blob_write_zeroes(blob, offset, length)
    return rc


cdef int blob_unmap(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t began = io_ticks()
    cdef int rc = unmap_range(blob, offset, length)
    io_stat_end(blob.stats.unmap, 0, rc, length, began)
    return rc


cdef int zero_partial(blob_t *blob, uint32_t c) noexcept nogil:
    """Covers the cluster with zeros, if it is partial; its parent need not be read for that."""
    cdef pthread_mutex_t *stripe = &blob.stripe[c % STRIPES]
    cdef partial_t *partial
    cdef int rc = 0
    pthread_mutex_lock(stripe)
    partial = partial_find(blob, c)
    if partial != NULL:
        rc = partial_write(blob, partial, 0, NULL, blob.store.cluster_size)
    pthread_mutex_unlock(stripe)
    return rc


cdef int blob_unmap_cluster(blob_t *blob, uint32_t c) noexcept nogil:
    cdef uint64_t began = io_ticks()
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef int rc = check_range(blob, c * cluster_size, cluster_size, True)
    cdef bint over_parent = blob.parent != NULL or blob.has_external
    if rc == 0 and load32(&blob.partial_count):
        rc = zero_partial(blob, c)
    if rc == 0 and (over_parent or not blob.thin) and map_own(blob, c):
        rc = write_owned(blob, map_own(blob, c), 0, NULL, cluster_size)
    gate_exit(&blob.store.gate, shard)
    if rc == 0 and blob.thin and not over_parent:
        rc = release_range(blob, c, c + 1)
    io_stat_end(blob.stats.unmap, shard, rc, cluster_size, began)
    return note_lost_write(blob, rc)


cdef bint ancestor_owns(blob_t *blob, uint32_t c, uint32_t depth) noexcept nogil:
    cdef uint32_t level = 0
    while depth == 0 or level < depth:
        if blob.parent == NULL:
            # Behind its end an external snapshot shows zeros.
            return blob.has_external and (
                blob.external == NULL
                or c * <uint64_t> blob.store.cluster_size < blob.external.size
            )
        blob = blob.parent
        if c >= blob.num_clusters:
            return False
        if map_own(blob, c):
            return True
        level += 1
    return False


cdef int blob_fill(
    blob_t *blob, uint32_t c, uint32_t depth, bint zeros, bint *filled
) noexcept nogil:
    cdef uint32_t shard
    # What is partial is the blob's own already.
    cdef int rc = blob_complete_cluster(blob, c) if c < blob.num_clusters else 0
    filled[0] = False
    if rc:
        return rc
    while True:
        shard = gate_enter(&blob.store.gate)
        rc = check_range(blob, c * <uint64_t> blob.store.cluster_size, 0, False)
        if rc == 0 and blob.store.read_only:
            rc = -EROFS
        if rc == 0 and c < blob.num_clusters and map_own(blob, c) == 0:
            if zeros or ancestor_owns(blob, c, depth):
                rc = write_first(blob, c, 0, NULL, 0)
                filled[0] = rc == 0
        gate_exit(&blob.store.gate, shard)
        if rc != -ENOSPC or not worth_retrying(blob.store):
            return rc


cdef int blob_allocate(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef int rc = check_range(blob, offset, length, True)
    cdef uint64_t c
    cdef bint filled
    gate_exit(&blob.store.gate, shard)
    c = offset // cluster_size
    while rc == 0 and length and c * cluster_size < offset + length:
        rc = blob_fill(blob, <uint32_t> c, 0, True, &filled)
        c += 1
    return rc
