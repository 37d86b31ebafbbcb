"""The data path of one blob: byte-granular, any offset and length, many threads.

A write to an owned cluster takes no lock. The first write to a cluster takes a new device
cluster, which is named in the map only when it is complete: filled at once - what the write
covers from the caller, the rest from the ancestors or with zeros - or, over a parent's data,
partial until later (see partial_cluster.pxd). A reader sees the old content or the new.
"""

from libc.errno cimport EBADF, EINVAL, EIO, ENODATA, ENOMEM, ENOSPC, EOPNOTSUPP, EROFS
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lvolfs._native.allocator cimport allocator_claim, allocator_release
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    EFFECTIVE_EXTERNAL,
    EFFECTIVE_ZERO,
    STRIPES,
    blob_size,
    extent_t,
    map_add_extent,
    map_claim_extent,
    map_extent,
    map_mark_dirty,
    map_own,
    map_resolve,
    map_resolve_below,
    map_set_own,
    partial_t,
    store_t,
)
from lvolfs._native.commit cimport store_flush, store_reclaim
from lvolfs._native.device cimport (
    device_is_hole,
    device_pread,
    device_pwrite,
    device_pwrite_new,
    device_t,
    device_zero,
)
from lvolfs._native.faults cimport FAULT_LOST_MARK, FAULT_SHORT_WRITE
from lvolfs._native.fresh_clusters cimport fresh_add, fresh_has, fresh_reserve
from lvolfs._native.io_stats cimport io_stat_end, io_ticks
from lvolfs._native.partial_cluster cimport (
    blob_complete,
    blob_complete_cluster,
    partial_begin,
    partial_complete,
    partial_find,
    partial_is_worth_it,
    partial_read,
    partial_write,
    store_complete,
)
from lvolfs._native.scratch cimport scratch_get
from lvolfs._native.sync cimport (
    add32,
    gate_enter,
    gate_exit,
    gate_is_mine,
    load32,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    store32,
)


cdef int check_range(blob_t *blob, uint64_t offset, uint64_t length, bint write) noexcept nogil:
    cdef uint64_t size
    if load32(&blob.store.closed):
        return -EBADF
    size = blob_size(blob)
    if offset > size or length > size - offset:
        return -EINVAL
    if write:
        if blob.read_only or blob.store.read_only:
            return -EROFS
        if load32(&blob.store.failed):
            return -EIO
    return 0


cdef int note_lost_write(blob_t *blob, int rc) noexcept nogil:
    """A write that the device refused fails every later flush of the lvol, too.

    Not one for which there was no room: its writer knows, and space may come back. Nor one
    that was refused before anything was tried.
    """
    if (rc != 0 and rc != -ENOSPC and rc != -ENOMEM and rc != -EROFS and rc != -EINVAL
            and rc != -EBADF):
        store32(&blob.failed, <uint32_t> (-rc))
    return rc


cdef void mark_written(store_t *store) noexcept nogil:
    # Only the first write after a commit dirties the cache line.
    if not load32(&store.written):
        store32(&store.written, 1)


cdef int read_external(
    device_t *external, void *buf, uint64_t length, uint64_t offset
) noexcept nogil:
    cdef uint64_t there = 0
    cdef int rc = 0
    if external == NULL:
        return -EIO
    if offset < external.size:
        there = min(length, external.size - offset)
        rc = device_pread(external, buf, there, offset)
    if rc == 0 and there < length:
        memset(<uint8_t *> buf + there, 0, length - there)
    return rc


cdef int read_resolved(
    blob_t *blob, uint32_t where, device_t *external, uint32_t c, uint64_t within,
    void *buf, uint64_t length
) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    if where == <uint32_t> EFFECTIVE_ZERO:
        memset(buf, 0, length)
        return 0
    if where == <uint32_t> EFFECTIVE_EXTERNAL:
        return read_external(external, buf, length, c * cluster_size + within)
    return device_pread(blob.store.dev, buf, length, where * cluster_size + within)


cdef bint read_partial(
    blob_t *blob, uint32_t c, uint64_t within, void *buf, uint64_t length, int *rc
) noexcept nogil:
    """Whether the cluster is partial; if so, what it shows is read."""
    cdef pthread_mutex_t *stripe = &blob.stripe[c % STRIPES]
    cdef partial_t *partial
    pthread_mutex_lock(stripe)
    partial = partial_find(blob, c)
    if partial != NULL:
        rc[0] = partial_read(blob, partial, within, buf, length)
    pthread_mutex_unlock(stripe)
    return partial != NULL


cdef int read_inside(blob_t *blob, uint8_t *at, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint64_t within, piece
    cdef uint32_t c, where, run
    cdef device_t *external = NULL
    # Before the map: what is partial no more is found there.
    cdef bint partials = load32(&blob.partial_count) != 0
    cdef int rc = 0
    while length:
        c = <uint32_t> (offset // cluster_size)
        within = offset % cluster_size
        piece = min(length, cluster_size - within)
        run = 1
        if not (partials and map_own(blob, c) == 0
                and read_partial(blob, c, within, at, piece, &rc)):
            where = map_resolve(blob, c, &external)
            # One request to the device for clusters that lie side by side there.
            while piece < length and where < <uint32_t> EFFECTIVE_EXTERNAL and not partials:
                if map_resolve(blob, c + run, &external) != where + run:
                    break
                piece = min(length, piece + cluster_size)
                run += 1
            rc = read_resolved(blob, where, external, c, within, at, piece)
        if rc:
            return rc
        at += piece
        offset += piece
        length -= piece
    return 0


cdef int blob_read(blob_t *blob, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t began = io_ticks()
    cdef uint32_t shard = gate_enter(&blob.store.gate)
    cdef int rc = check_range(blob, offset, length, False)
    if rc == 0:
        rc = read_inside(blob, <uint8_t *> buf, offset, length)
    gate_exit(&blob.store.gate, shard)
    io_stat_end(blob.stats.read, shard, rc, length, began)
    return rc


cdef int blob_read_own(blob_t *blob, uint32_t c, void *buf) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint32_t shard, own
    cdef int rc = blob_complete_cluster(blob, c)
    if rc:
        return rc
    shard = gate_enter(&blob.store.gate)
    rc = check_range(blob, c * cluster_size, cluster_size, False)
    if rc == 0:
        own = map_own(blob, c)
        rc = -ENODATA if own == 0 else device_pread(
            blob.store.dev, buf, cluster_size, own * cluster_size
        )
    gate_exit(&blob.store.gate, shard)
    return rc


cdef int claim_extent(blob_t *blob, uint32_t c) noexcept nogil:
    """Makes sure that the cluster's extent is there, and has a page, so that a commit cannot
    lack one."""
    cdef uint32_t extent = c // CLUSTERS_PER_EXTENT
    cdef extent_t *added
    cdef int rc = 0
    if map_extent(blob, extent) != NULL:
        return 0
    # Clusters of one extent are spread over the stripes, so those do not exclude each other.
    pthread_mutex_lock(&blob.extent_lock)
    if map_extent(blob, extent) == NULL:
        rc = map_claim_extent(blob, &added)
        if rc == 0:
            map_add_extent(blob, extent, added)
    pthread_mutex_unlock(&blob.extent_lock)
    return rc


cdef int fill_zeroes(
    store_t *store, uint64_t base, uint64_t start, uint64_t end, uint64_t cluster_size
) noexcept nogil:
    """Zeros in a new cluster outside of [start, end)."""
    cdef int rc
    if device_is_hole(store.dev, base, cluster_size):
        return 0
    rc = device_zero(store.dev, base, start)
    if rc == 0:
        rc = device_zero(store.dev, base + end, cluster_size - end)
    return rc


cdef int fill_new_cluster(
    blob_t *blob, uint32_t c, uint32_t new, uint64_t start, const void *data, uint64_t length
) noexcept nogil:
    """Device cluster `new` becomes blob cluster c with `data` (NULL: zeros) at `start`."""
    cdef store_t *store = blob.store
    cdef uint64_t cluster_size = store.cluster_size
    cdef uint64_t base = new * cluster_size
    cdef uint64_t end = start + length
    cdef device_t *external = NULL
    cdef uint32_t where
    cdef uint8_t *whole
    cdef int rc = 0
    if length < cluster_size:
        where = map_resolve_below(blob, c, &external)
        if where != <uint32_t> EFFECTIVE_ZERO:
            # One device write of the whole cluster beats three of its parts.
            whole = <uint8_t *> scratch_get(cluster_size)
            if whole == NULL:
                return -ENOMEM
            rc = read_resolved(blob, where, external, c, 0, whole, start)
            if rc == 0:
                rc = read_resolved(
                    blob, where, external, c, end, whole + end, cluster_size - end
                )
            if rc:
                return rc
            if data == NULL:
                memset(whole + start, 0, length)
            else:
                memcpy(whole + start, data, length)
            return device_pwrite_new(store.dev, whole, cluster_size, base)
        rc = fill_zeroes(store, base, start, end, cluster_size)
        if rc:
            return rc
    if length == 0:
        return 0
    if data == NULL:
        return device_zero(store.dev, base + start, length)
    return device_pwrite_new(store.dev, data, length, base + start)


cdef int fill_first(
    blob_t *blob, uint32_t c, uint32_t new, uint64_t start, const void *data, uint64_t length
) noexcept nogil:
    """The first bytes of a new cluster, with its stripe lock held: it is owned afterwards,
    complete or partial, unless there is an error."""
    cdef int rc = -EOPNOTSUPP
    if partial_is_worth_it(blob, c, length):
        rc = partial_begin(blob, c, new, start, data, length)
    if rc == -EOPNOTSUPP:
        rc = fill_new_cluster(blob, c, new, start, data, length)
        if rc == 0:
            if data != NULL and length < blob.store.cluster_size:
                fresh_add(&blob.store.fresh, blob.store.dev, new)
            map_set_own(blob, c, new)
            add32(&blob.owned, 1)
            if not blob.store.faults & FAULT_LOST_MARK:
                map_mark_dirty(blob, c)
    if rc:
        allocator_release(&blob.store.clusters, new)
    return rc


cdef int write_first(
    blob_t *blob, uint32_t c, uint64_t start, const void *data, uint64_t length
) noexcept nogil:
    """A write to a cluster that the blob did not own when it was looked at."""
    cdef store_t *store = blob.store
    cdef pthread_mutex_t *stripe = &blob.stripe[c % STRIPES]
    cdef uint32_t own
    cdef partial_t *partial
    cdef long new
    cdef int rc
    pthread_mutex_lock(stripe)
    own = map_own(blob, c)
    if own:
        # Somebody else was first.
        pthread_mutex_unlock(stripe)
        return write_owned(blob, own, start, data, length)
    partial = partial_find(blob, c)
    if partial != NULL and length:
        rc = partial_write(blob, partial, start, data, length)
    elif partial != NULL:
        rc = partial_complete(blob, partial)
    else:
        rc = claim_extent(blob, c)
        if rc == 0:
            new = allocator_claim(&store.clusters, 1)
            rc = <int> new if new < 0 else fill_first(blob, c, <uint32_t> new, start, data, length)
    pthread_mutex_unlock(stripe)
    return rc


cdef int write_owned(
    blob_t *blob, uint32_t own, uint64_t start, const void *data, uint64_t length
) noexcept nogil:
    cdef store_t *store = blob.store
    cdef uint64_t at = own * <uint64_t> store.cluster_size + start
    cdef int rc
    if length == 0:
        return 0
    if store.faults & FAULT_SHORT_WRITE:
        length //= 2
    if data == NULL:
        rc = device_zero(store.dev, at, length)
    else:
        if fresh_has(&store.fresh, own):
            fresh_reserve(&store.fresh, store.dev, own, store.cluster_size)
        rc = device_pwrite(store.dev, data, length, at)
    mark_written(store)
    return rc


cdef int write_inside(
    blob_t *blob, const uint8_t *at, uint64_t offset, uint64_t length, uint64_t *done
) noexcept nogil:
    """Writes until the end or an error; `done` counts the bytes that are in place."""
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint64_t within, piece
    cdef uint32_t c, own, run
    cdef int rc
    while length:
        c = <uint32_t> (offset // cluster_size)
        within = offset % cluster_size
        own = map_own(blob, c)
        piece = min(length, cluster_size - within)
        if own:
            run = 1
            while piece < length and map_own(blob, c + run) == own + run:
                piece = min(length, piece + cluster_size)
                run += 1
            rc = write_owned(blob, own, within, at, piece)
        else:
            rc = write_first(blob, c, within, at, piece)
        if rc:
            return rc
        at += piece
        offset += piece
        length -= piece
        done[0] += piece
    return 0


cdef bint worth_retrying(store_t *store) noexcept nogil:
    """After ENOSPC: whether clusters that were freed could be given back by a commit.

    Called outside of the gate, since a commit may wait for whoever closes it.
    """
    if gate_is_mine(&store.gate):
        return False
    return store_reclaim(store)


cdef int blob_write(
    blob_t *blob, const void *buf, uint64_t offset, uint64_t length
) noexcept nogil:
    cdef const uint8_t *at = <const uint8_t *> buf
    cdef uint64_t began = io_ticks()
    cdef uint64_t done = 0
    cdef uint32_t shard
    cdef int rc
    while True:
        shard = gate_enter(&blob.store.gate)
        rc = check_range(blob, offset, length, True)
        if rc == 0:
            rc = write_inside(blob, at + done, offset + done, length - done, &done)
        gate_exit(&blob.store.gate, shard)
        if rc != -ENOSPC or not worth_retrying(blob.store):
            break
    io_stat_end(blob.stats.write, shard, rc, length, began)
    return note_lost_write(blob, rc) if rc else 0


cdef int blob_flush(blob_t *blob) noexcept nogil:
    # First what the commit is to name. Of the others' errors their own flushes tell.
    cdef int incomplete = blob_complete(blob)
    cdef int rc
    store_complete(blob.store, False, NULL)
    rc = store_flush(blob.store)
    if rc == 0:
        rc = incomplete
    if rc == 0 and load32(&blob.failed):
        rc = -<int> load32(&blob.failed)
    return rc
