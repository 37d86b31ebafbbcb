"""When metadata reach the device, and in which order."""

from libc.errno cimport EINVAL, ENOMEM, ENOSPC
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from lvolfs._native.allocator cimport (
    allocator_defer,
    allocator_pending,
    allocator_release,
    allocator_take_pending,
)
from lvolfs._native.capture cimport (
    capture_begin,
    capture_blob,
    capture_drop,
    capture_free,
    capture_t,
    chain_write_t,
    continuation_pages,
)
from lvolfs._native.cluster_map cimport CLUSTERS_PER_EXTENT, blob_put, extent_t
from lvolfs._native.device cimport (
    device_discard,
    device_flush,
    device_pread,
    device_pwrite,
    device_pwrite_page,
)
from lvolfs._native.faults cimport (
    FAULT_CHAIN_FIRST,
    FAULT_CLEAN_KEPT,
    FAULT_NO_DATA_BARRIER,
    FAULT_NO_PAGE_BARRIER,
    FAULT_ROOTS_FIRST,
    FAULT_STALE_CRC,
)
from lvolfs._native.metadata cimport MD_PAGE, crc32c, page_offset
from lvolfs._native.partial_cluster cimport partials_drop
from lvolfs._native.sync cimport (
    load32,
    pthread_cond_broadcast,
    pthread_cond_wait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    store32,
    swap32,
)

cdef enum:
    SUPER_CLEAN = 16            # offset of the clean flag in the super block
    SUPER_CRC = 4092


ctypedef struct commit_t:
    store_t *store
    capture_t capture
    uint32_t *freed_clusters
    uint32_t freed_cluster_count
    uint32_t *freed_pages
    uint32_t freed_page_count


cdef void commit_begin(commit_t *commit, store_t *store) noexcept nogil:
    memset(commit, 0, sizeof(commit_t))
    commit.store = store
    capture_begin(&commit.capture, store)


cdef void commit_undo(commit_t *commit) noexcept nogil:
    """After an error: what was captured is to be committed again."""
    cdef uint32_t i
    capture_drop(&commit.capture)
    for i in range(commit.freed_cluster_count):
        allocator_defer(&commit.store.clusters, commit.freed_clusters[i])
    for i in range(commit.freed_page_count):
        allocator_defer(&commit.store.pages, commit.freed_pages[i])


cdef void commit_free(commit_t *commit) noexcept nogil:
    capture_free(&commit.capture)
    free(commit.freed_clusters)
    free(commit.freed_pages)


cdef void commit_set_reserve(store_t *store) noexcept nogil:
    cdef uint32_t longest = 0
    cdef blob_t *blob = store.blobs
    while blob != NULL:
        longest = max(longest, continuation_pages(blob))
        blob = blob.next
    store32(&store.page_reserve, longest + 1 if store.blobs != NULL else 0)


cdef void follow_chain(store_t *store, uint32_t before, uint32_t after) noexcept nogil:
    """The reserve is that of the longest chain. A blob has `after` continuation pages instead of
    `before`: all others are looked at only where it may have been the longest."""
    cdef uint32_t reserve = load32(&store.page_reserve)
    if after + 1 >= reserve:
        store32(&store.page_reserve, after + 1)
    elif before + 1 == reserve:
        commit_set_reserve(store)


# -- writing, in order

cdef int barrier(store_t *store) noexcept nogil:
    """A failed flush leaves unknown what is durable, so nothing is committed after it."""
    cdef int rc = device_flush(store.dev)
    if rc:
        store32(&store.failed, <uint32_t> (-rc))
    return rc


cdef int mark_super_dirty(store_t *store) noexcept nogil:
    """super.clean = 0, durable before the first change of metadata since the load."""
    cdef uint8_t *page
    cdef uint32_t word = 0
    cdef int rc
    if store.super_marked_dirty or store.faults & FAULT_CLEAN_KEPT:
        return 0
    page = <uint8_t *> malloc(MD_PAGE)
    if page == NULL:
        return -ENOMEM
    rc = device_pread(store.dev, page, MD_PAGE, 0)
    if rc == 0:
        memcpy(page + SUPER_CLEAN, &word, 4)
        word = crc32c(page, SUPER_CRC)
        memcpy(page + SUPER_CRC, &word, 4)
        rc = device_pwrite_page(store.dev, page, 0)
    free(page)
    if rc == 0:
        rc = barrier(store)
    if rc == 0:
        store.super_marked_dirty = True
    return rc


cdef int write_pages(capture_t *capture) noexcept nogil:
    """Extent pages, and chain pages but the roots."""
    cdef store_t *store = capture.store
    cdef chain_write_t *chain
    cdef uint32_t i, k
    cdef int rc
    for i in range(capture.extent_count):
        if store.faults & FAULT_STALE_CRC:
            capture.extents[i].image[MD_PAGE - 1] ^= 1
        rc = device_pwrite_page(
            store.dev, capture.extents[i].image,
            page_offset(capture.extents[i].blob, capture.extents[i].page),
        )
        if rc:
            return rc
    for i in range(capture.chain_count):
        chain = &capture.chains[i]
        for k in range(1, chain.image.count):
            rc = device_pwrite_page(
                store.dev, chain.image.pages + <uint64_t> k * MD_PAGE,
                page_offset(chain.blob, chain.indices[k]),
            )
            if rc:
                return rc
    return 0


cdef int write_roots(capture_t *capture) noexcept nogil:
    cdef chain_write_t *chain
    cdef uint32_t i
    cdef int rc
    for i in range(capture.chain_count):
        chain = &capture.chains[i]
        rc = device_pwrite_page(
            capture.store.dev, chain.image.pages,
            page_offset(chain.blob, chain.indices[0]),
        )
        if rc:
            # Which of the two chains the root names is unknown now: both must stay.
            store32(&capture.store.failed, <uint32_t> (-rc))
            return rc
    return barrier(capture.store) if capture.chain_count else 0


cdef void zero_and_release_page(store_t *store, uint32_t page) noexcept nogil:
    cdef uint8_t[4096] zeros
    memset(zeros, 0, MD_PAGE)
    # Not needed for correctness, so an error is left to the next reader of the page.
    device_pwrite(
        store.dev, zeros, MD_PAGE, (<uint64_t> store.md_start + page) * store.page_size
    )
    allocator_release(&store.pages, page)


cdef void adopt_chains(capture_t *capture) noexcept nogil:
    """The roots are durable: the old continuation pages are nobody's now."""
    cdef chain_write_t *chain
    cdef blob_t *blob
    cdef uint32_t before, i, k
    for i in range(capture.chain_count):
        chain = &capture.chains[i]
        blob = chain.blob
        before = continuation_pages(blob)
        for k in range(1, blob.chain_length):
            zero_and_release_page(capture.store, blob.chain[k])
        free(blob.chain)
        blob.chain = chain.indices
        blob.chain_length = chain.image.count
        chain.indices = NULL
        follow_chain(capture.store, before, continuation_pages(blob))


cdef bint has_pages(capture_t *capture) noexcept nogil:
    """Whether there is anything to write before the roots."""
    cdef uint32_t i
    for i in range(capture.chain_count):
        if capture.chains[i].image.count > 1:
            return True
    return capture.extent_count > 0


cdef bint names_clusters(capture_t *capture) noexcept nogil:
    """Whether it may name clusters whose data are not durable yet: in an extent page, or in a
    chain that lists them itself."""
    cdef uint32_t i
    for i in range(capture.chain_count):
        if capture.chains[i].blob.rle:
            return True
    return capture.extent_count > 0


cdef int commit_write(capture_t *capture, bint data_written) noexcept nogil:
    cdef store_t *store = capture.store
    cdef bint pages = has_pages(capture)
    cdef int rc = 0
    if (data_written or names_clusters(capture)) and not store.faults & FAULT_NO_DATA_BARRIER:
        rc = barrier(store)
    if rc or not (pages or capture.chain_count):
        return rc
    rc = mark_super_dirty(store)
    if rc == 0 and store.faults & FAULT_ROOTS_FIRST:
        rc = write_roots(capture)
    if rc == 0 and pages:
        rc = write_pages(capture)
        if rc == 0 and not store.faults & FAULT_NO_PAGE_BARRIER:
            rc = barrier(store)
    if rc == 0:
        rc = write_roots(capture)
    if rc == 0:
        adopt_chains(capture)
    return rc


# -- giving freed space back

cdef int compare32(const void *a, const void *b) noexcept nogil:
    cdef uint32_t x = (<const uint32_t *> a)[0]
    cdef uint32_t y = (<const uint32_t *> b)[0]
    return (x > y) - (x < y)


cdef void give_back(commit_t *commit) noexcept nogil:
    cdef store_t *store = commit.store
    cdef uint32_t *items = commit.freed_clusters
    cdef uint32_t i = 0
    cdef uint32_t run, k
    if commit.freed_cluster_count:
        qsort(items, commit.freed_cluster_count, 4, compare32)
    while i < commit.freed_cluster_count:
        run = 1
        while i + run < commit.freed_cluster_count and items[i + run] == items[i] + run:
            run += 1
        device_discard(
            store.dev, items[i] * <uint64_t> store.cluster_size,
            run * <uint64_t> store.cluster_size,
        )
        for k in range(run):
            allocator_release(&store.clusters, items[i + k])
        i += run
    for i in range(commit.freed_page_count):
        zero_and_release_page(store, commit.freed_pages[i])


# -- the whole

cdef int commit_one_by_one(store_t *store) noexcept nogil:
    """All that changed, with no more than the longest chain's new pages at a time."""
    cdef blob_t *blob = store.blobs
    cdef capture_t one
    cdef int rc = 0
    while blob != NULL and rc == 0:
        capture_begin(&one, store)
        rc = capture_blob(&one, blob, False)
        if rc == 0:
            rc = commit_write(&one, True)
        if rc:
            capture_drop(&one)
        capture_free(&one)
        blob = blob.next
    return rc


cdef int commit_run(commit_t *commit, bint take_freed) noexcept nogil:
    """By whoever holds commit_lock. On success the freed lists are left to the caller."""
    cdef store_t *store = commit.store
    cdef blob_t *blob
    cdef uint32_t changed, written
    cdef int rc = 0
    if load32(&store.failed):
        return -<int> load32(&store.failed)
    # Both in any case: a commit begins with the data barrier.
    changed = swap32(&store.dirty, 0)
    written = swap32(&store.written, 0)
    if store.read_only or not (changed or written):
        return 0
    # Before the capture, so that the maps captured no longer name them.
    if take_freed:
        commit.freed_clusters = allocator_take_pending(
            &store.clusters, &commit.freed_cluster_count
        )
        commit.freed_pages = allocator_take_pending(&store.pages, &commit.freed_page_count)
    else:
        store32(
            &store.dirty, allocator_pending(&store.clusters) + allocator_pending(&store.pages)
        )
    blob = store.blobs
    while blob != NULL and rc == 0:
        # A look first: taking the mark of each would write to the memory of all.
        if load32(&blob.map_dirty):
            rc = capture_blob(&commit.capture, blob, False)
        blob = blob.next
    if rc == -ENOSPC:
        capture_drop(&commit.capture)
        rc = commit_one_by_one(store)
    elif rc == 0:
        rc = commit_write(&commit.capture, True)
    if rc:
        commit_undo(commit)
    return rc


cdef int commit_locked(store_t *store) noexcept nogil:
    cdef commit_t commit
    cdef int rc
    commit_begin(&commit, store)
    rc = commit_run(&commit, False)
    commit_free(&commit)
    return rc


cdef int commit_blob(blob_t *blob) noexcept nogil:
    cdef store_t *store = blob.store
    cdef capture_t capture
    cdef int rc
    if load32(&store.failed):
        return -<int> load32(&store.failed)
    capture_begin(&capture, store)
    rc = capture_blob(&capture, blob, True)
    if rc == 0:
        rc = commit_write(&capture, False)
    if rc:
        capture_drop(&capture)
    capture_free(&capture)
    return rc


cdef void commit_forget(blob_t *blob) noexcept nogil:
    cdef store_t *store = blob.store
    cdef blob_t **at = &store.blobs
    while at[0] != NULL:
        if at[0] == blob:
            at[0] = blob.next
            if store.blobs == NULL or continuation_pages(blob):
                commit_set_reserve(store)
            blob_put(blob)
            return
        at = &at[0].next


cdef void defer_extent(store_t *store, extent_t *extent) noexcept nogil:
    """Its clusters and its page are free after the next commit."""
    cdef uint32_t i
    if extent == NULL:
        return
    for i in range(CLUSTERS_PER_EXTENT):
        if extent.clusters[i]:
            allocator_defer(&store.clusters, extent.clusters[i])
    if extent.page:
        allocator_defer(&store.pages, extent.page)


cdef int commit_destroy(blob_t *blob) noexcept nogil:
    cdef store_t *store = blob.store
    cdef uint8_t[4096] zeros
    cdef uint32_t i
    cdef int rc
    if load32(&store.failed):
        return -<int> load32(&store.failed)
    if blob.chain_length == 0:
        return -EINVAL
    memset(zeros, 0, MD_PAGE)
    rc = mark_super_dirty(store)
    if rc == 0 and store.faults & FAULT_CHAIN_FIRST:
        for i in range(1, blob.chain_length):
            device_pwrite(store.dev, zeros, MD_PAGE, page_offset(blob, blob.chain[i]))
    if rc == 0:
        # The root alone first: a root whose chain is gone would be half a blob.
        rc = device_pwrite_page(store.dev, zeros, page_offset(blob, blob.chain[0]))
    if rc == 0:
        rc = barrier(store)
    if rc:
        return rc
    for i in range(blob.chain_length):
        zero_and_release_page(store, blob.chain[i])
    for i in range(blob.num_extents):
        defer_extent(store, blob.extents[i])
    partials_drop(blob)
    # Requests through handles that are still open find an empty blob.
    store32(&blob.num_clusters, 0)
    blob.num_extents = 0
    store32(&blob.owned, 0)
    blob.map_dirty = 0
    store32(&store.dirty, 1)
    commit_forget(blob)
    return 0


cdef int flush_once(store_t *store) noexcept nogil:
    cdef commit_t commit
    cdef int rc
    commit_begin(&commit, store)
    pthread_mutex_lock(&store.commit_lock)
    rc = commit_run(&commit, True)
    pthread_mutex_lock(&store.flush_lock)
    store.discarding += 1
    store.commit_running = False
    store.commits_done = store.commits_started
    store.last_commit_result = rc
    pthread_cond_broadcast(&store.flush_done)
    pthread_mutex_unlock(&store.flush_lock)
    pthread_mutex_unlock(&store.commit_lock)
    # Discards may take long, and nobody who flushes needs to wait for them.
    if rc == 0:
        give_back(&commit)
    commit_free(&commit)
    pthread_mutex_lock(&store.flush_lock)
    store.discarding -= 1
    pthread_cond_broadcast(&store.flush_done)
    pthread_mutex_unlock(&store.flush_lock)
    return rc


cdef int store_flush(store_t *store) noexcept nogil:
    cdef uint64_t needed
    cdef int rc = 0
    pthread_mutex_lock(&store.flush_lock)
    # The commit under way may have captured before the caller's last write.
    needed = store.commits_started + 1
    while store.commits_done < needed:
        if store.commit_running:
            pthread_cond_wait(&store.flush_done, &store.flush_lock)
            rc = store.last_commit_result
        else:
            store.commit_running = True
            store.commits_started += 1
            pthread_mutex_unlock(&store.flush_lock)
            return flush_once(store)
    pthread_mutex_unlock(&store.flush_lock)
    return rc


cdef void store_settle(store_t *store) noexcept nogil:
    pthread_mutex_lock(&store.flush_lock)
    while store.discarding:
        pthread_cond_wait(&store.flush_done, &store.flush_lock)
    pthread_mutex_unlock(&store.flush_lock)


cdef bint store_reclaim(store_t *store) noexcept nogil:
    cdef uint32_t waiting = allocator_pending(&store.clusters) + allocator_pending(&store.pages)
    cdef uint32_t discarding
    pthread_mutex_lock(&store.flush_lock)
    discarding = store.discarding
    pthread_mutex_unlock(&store.flush_lock)
    if not waiting and not discarding:
        return False
    if waiting and store_flush(store):
        return False
    store_settle(store)
    return True
