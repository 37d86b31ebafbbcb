"""When metadata reach the device, and in which order."""

from libc.errno cimport EINVAL, ENOMEM, ENOSPC
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from lvolfs._native.allocator cimport (
    allocator_claim,
    allocator_defer,
    allocator_free,
    allocator_pending,
    allocator_release,
    allocator_take_pending,
)
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    blob_put,
    extent_t,
    map_extent_page,
)
from lvolfs._native.faults cimport (
    FAULT_CHAIN_FIRST,
    FAULT_CLEAN_KEPT,
    FAULT_NO_DATA_BARRIER,
    FAULT_NO_PAGE_BARRIER,
    FAULT_ROOTS_FIRST,
    FAULT_STALE_CRC,
)
from lvolfs._native.device cimport device_discard, device_flush, device_pread, device_pwrite
from lvolfs._native.metadata cimport (
    MD_PAGE,
    chain_build,
    chain_free,
    chain_image_t,
    chain_seal,
    crc32c,
    extent_image,
    page_offset,
)
from lvolfs._native.sync cimport (
    load8,
    load32,
    load64,
    pthread_cond_broadcast,
    pthread_cond_wait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    store8,
    store32,
    swap8,
    swap32,
)

cdef enum:
    SUPER_CLEAN = 16            # offset of the clean flag in the super block
    SUPER_CRC = 4092


# An extent page as captured.
ctypedef struct extent_write_t:
    blob_t *blob
    uint32_t extent
    uint32_t page
    uint8_t *image


# A chain as captured, and the pages it goes to.
ctypedef struct chain_write_t:
    blob_t *blob
    chain_image_t image
    uint32_t *indices
    uint32_t claimed            # indices[1..claimed] are newly claimed


ctypedef struct commit_t:
    store_t *store
    extent_write_t *extents
    uint32_t extent_count
    uint32_t extent_room
    chain_write_t *chains
    uint32_t chain_count
    uint32_t chain_room
    uint32_t *freed_clusters
    uint32_t freed_cluster_count
    uint32_t *freed_pages
    uint32_t freed_page_count


# -- capture

cdef int capture_extent(
    commit_t *commit, blob_t *blob, uint32_t extent, uint32_t page
) noexcept nogil:
    cdef extent_write_t *extents
    cdef uint8_t *image
    cdef uint32_t room
    if commit.extent_count == commit.extent_room:
        room = commit.extent_room * 2 if commit.extent_room else 16
        extents = <extent_write_t *> realloc(commit.extents, room * sizeof(extent_write_t))
        if extents == NULL:
            return -ENOMEM
        commit.extents = extents
        commit.extent_room = room
    image = <uint8_t *> malloc(MD_PAGE)
    if image == NULL:
        return -ENOMEM
    extent_image(blob, extent, image)
    commit.extents[commit.extent_count].blob = blob
    commit.extents[commit.extent_count].extent = extent
    commit.extents[commit.extent_count].page = page
    commit.extents[commit.extent_count].image = image
    commit.extent_count += 1
    return 0


cdef uint32_t continuation_pages(blob_t *blob) noexcept nogil:
    return blob.chain_length - 1 if blob.chain_length else 0


cdef bint leaves_reserve(store_t *store, blob_t *blob, uint32_t needed) noexcept nogil:
    """Whether a chain of so many pages beside its root may take the place of the blob's."""
    cdef uint32_t now = continuation_pages(blob)
    cdef uint32_t reserve = load32(&store.page_reserve)
    if needed <= now:
        return True
    return allocator_free(&store.pages) >= needed - now + max(reserve, needed + 1)


cdef int capture_chain(
    commit_t *commit, blob_t *blob, const uint32_t *extent_pages, bint whole
) noexcept nogil:
    cdef chain_write_t *chains
    cdef chain_write_t *chain
    cdef uint32_t room, i
    cdef long page
    cdef int rc
    if commit.chain_count == commit.chain_room:
        room = commit.chain_room * 2 if commit.chain_room else 4
        chains = <chain_write_t *> realloc(commit.chains, room * sizeof(chain_write_t))
        if chains == NULL:
            return -ENOMEM
        commit.chains = chains
        commit.chain_room = room
    chain = &commit.chains[commit.chain_count]
    memset(chain, 0, sizeof(chain_write_t))
    chain.blob = blob
    rc = chain_build(&chain.image, blob, extent_pages)
    if rc:
        return rc
    # Counted from here on, so that an error below gives everything back.
    commit.chain_count += 1
    chain.indices = <uint32_t *> malloc(4 * <uint64_t> chain.image.count)
    if chain.indices == NULL:
        return -ENOMEM
    # What the data path made longer is accepted already, new metadata may be refused.
    if whole and not leaves_reserve(commit.store, blob, chain.image.count - 1):
        return -ENOSPC
    chain.indices[0] = <uint32_t> blob.id
    for i in range(1, chain.image.count):
        page = allocator_claim(&commit.store.pages, 1)
        if page < 0:
            return <int> page
        chain.indices[i] = <uint32_t> page
        chain.claimed = i
    chain_seal(&chain.image, blob.id, chain.indices)
    return 0


cdef int capture_blob(commit_t *commit, blob_t *blob, bint whole) noexcept nogil:
    """Takes over what changed in one blob, and clears its marks, outermost first."""
    cdef uint32_t *table = NULL
    cdef uint32_t extent, page
    cdef bint chain
    cdef int rc = 0
    if not swap32(&blob.map_dirty, 0) and not whole:
        return 0
    chain = swap32(&blob.table_dirty, 0) or whole
    if chain and blob.num_extents and not blob.rle:
        # Before the pages: one that is named here is captured below or on the device.
        table = <uint32_t *> malloc(4 * <uint64_t> blob.num_extents)
        if table == NULL:
            rc = -ENOMEM
        else:
            for extent in range(blob.num_extents):
                table[extent] = map_extent_page(blob, extent)
    extent = 0
    while rc == 0 and not blob.rle and extent < blob.num_extents:
        # Most extents are clean, and most of a large thin blob's marks were never written.
        if extent % 8 == 0 and load64(<uint64_t *> &blob.extent_dirty[extent]) == 0:
            extent += 8
            continue
        if load8(&blob.extent_dirty[extent]) and swap8(&blob.extent_dirty[extent], 0):
            page = map_extent_page(blob, extent)
            if page:
                rc = capture_extent(commit, blob, extent, page)
            if page == 0 or rc:
                # Being claimed just now: its owner's write is not finished.
                store8(&blob.extent_dirty[extent], 1)
                store32(&blob.map_dirty, 1)
        extent += 1
    if rc == 0 and chain:
        rc = capture_chain(commit, blob, table, whole)
    if rc:
        store32(&blob.map_dirty, 1)
        if chain:
            store32(&blob.table_dirty, 1)
    free(table)
    return rc


cdef void commit_set_reserve(store_t *store) noexcept nogil:
    cdef uint32_t longest = 0
    cdef blob_t *blob = store.blobs
    while blob != NULL:
        longest = max(longest, continuation_pages(blob))
        blob = blob.next
    store32(&store.page_reserve, longest + 1 if store.blobs != NULL else 0)


cdef void free_captured(commit_t *commit) noexcept nogil:
    cdef uint32_t i
    for i in range(commit.extent_count):
        free(commit.extents[i].image)
    for i in range(commit.chain_count):
        chain_free(&commit.chains[i].image)
        free(commit.chains[i].indices)
    commit.extent_count = 0
    commit.chain_count = 0


cdef void drop_captured(commit_t *commit) noexcept nogil:
    """Marks what was captured as to be captured again, and forgets it."""
    cdef uint32_t i, k
    cdef blob_t *blob
    for i in range(commit.extent_count):
        blob = commit.extents[i].blob
        store8(&blob.extent_dirty[commit.extents[i].extent], 1)
        store32(&blob.map_dirty, 1)
    for i in range(commit.chain_count):
        blob = commit.chains[i].blob
        store32(&blob.table_dirty, 1)
        store32(&blob.map_dirty, 1)
        for k in range(1, commit.chains[i].claimed + 1):
            allocator_release(&commit.store.pages, commit.chains[i].indices[k])
    free_captured(commit)
    store32(&commit.store.dirty, 1)
    store32(&commit.store.written, 1)


cdef void commit_undo(commit_t *commit) noexcept nogil:
    """After an error: what was captured is to be committed again."""
    cdef uint32_t i
    drop_captured(commit)
    for i in range(commit.freed_cluster_count):
        allocator_defer(&commit.store.clusters, commit.freed_clusters[i])
    for i in range(commit.freed_page_count):
        allocator_defer(&commit.store.pages, commit.freed_pages[i])


cdef void commit_free(commit_t *commit) noexcept nogil:
    free_captured(commit)
    free(commit.extents)
    free(commit.chains)
    free(commit.freed_clusters)
    free(commit.freed_pages)


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
        rc = device_pwrite(store.dev, page, MD_PAGE, 0)
    free(page)
    if rc == 0:
        rc = barrier(store)
    if rc == 0:
        store.super_marked_dirty = True
    return rc


cdef int write_pages(commit_t *commit) noexcept nogil:
    """Extent pages, and chain pages but the roots."""
    cdef store_t *store = commit.store
    cdef chain_write_t *chain
    cdef uint32_t i, k
    cdef int rc
    for i in range(commit.extent_count):
        if store.faults & FAULT_STALE_CRC:
            commit.extents[i].image[MD_PAGE - 1] ^= 1
        rc = device_pwrite(
            store.dev, commit.extents[i].image, MD_PAGE,
            page_offset(commit.extents[i].blob, commit.extents[i].page),
        )
        if rc:
            return rc
    for i in range(commit.chain_count):
        chain = &commit.chains[i]
        for k in range(1, chain.image.count):
            rc = device_pwrite(
                store.dev, chain.image.pages + <uint64_t> k * MD_PAGE, MD_PAGE,
                page_offset(chain.blob, chain.indices[k]),
            )
            if rc:
                return rc
    return 0


cdef int write_roots(commit_t *commit) noexcept nogil:
    cdef chain_write_t *chain
    cdef uint32_t i
    cdef int rc
    for i in range(commit.chain_count):
        chain = &commit.chains[i]
        rc = device_pwrite(
            commit.store.dev, chain.image.pages, MD_PAGE,
            page_offset(chain.blob, chain.indices[0]),
        )
        if rc:
            # Which of the two chains the root names is unknown now: both must stay.
            store32(&commit.store.failed, <uint32_t> (-rc))
            return rc
    return barrier(commit.store) if commit.chain_count else 0


cdef void zero_and_release_page(store_t *store, uint32_t page) noexcept nogil:
    cdef uint8_t[4096] zeros
    memset(zeros, 0, MD_PAGE)
    # Not needed for correctness, so an error is left to the next reader of the page.
    device_pwrite(
        store.dev, zeros, MD_PAGE, (<uint64_t> store.md_start + page) * store.page_size
    )
    allocator_release(&store.pages, page)


cdef void adopt_chains(commit_t *commit) noexcept nogil:
    """The roots are durable: the old continuation pages are nobody's now."""
    cdef chain_write_t *chain
    cdef blob_t *blob
    cdef uint32_t i, k
    for i in range(commit.chain_count):
        chain = &commit.chains[i]
        blob = chain.blob
        for k in range(1, blob.chain_length):
            zero_and_release_page(commit.store, blob.chain[k])
        free(blob.chain)
        blob.chain = chain.indices
        blob.chain_length = chain.image.count
        chain.indices = NULL
    if commit.chain_count:
        commit_set_reserve(commit.store)


cdef bint has_pages(commit_t *commit) noexcept nogil:
    """Whether there is anything to write before the roots."""
    cdef uint32_t i
    for i in range(commit.chain_count):
        if commit.chains[i].image.count > 1:
            return True
    return commit.extent_count > 0


cdef bint names_clusters(commit_t *commit) noexcept nogil:
    """Whether it may name clusters whose data are not durable yet: in an extent page, or in a
    chain that lists them itself."""
    cdef uint32_t i
    for i in range(commit.chain_count):
        if commit.chains[i].blob.rle:
            return True
    return commit.extent_count > 0


cdef int commit_write(commit_t *commit, bint data_written) noexcept nogil:
    cdef store_t *store = commit.store
    cdef bint pages = has_pages(commit)
    cdef int rc = 0
    if (data_written or names_clusters(commit)) and not store.faults & FAULT_NO_DATA_BARRIER:
        rc = barrier(store)
    if rc or not (pages or commit.chain_count):
        return rc
    rc = mark_super_dirty(store)
    if rc == 0 and store.faults & FAULT_ROOTS_FIRST:
        rc = write_roots(commit)
    if rc == 0 and pages:
        rc = write_pages(commit)
        if rc == 0 and not store.faults & FAULT_NO_PAGE_BARRIER:
            rc = barrier(store)
    if rc == 0:
        rc = write_roots(commit)
    if rc == 0:
        adopt_chains(commit)
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
    cdef commit_t one
    cdef int rc = 0
    while blob != NULL and rc == 0:
        memset(&one, 0, sizeof(commit_t))
        one.store = store
        rc = capture_blob(&one, blob, False)
        if rc == 0:
            rc = commit_write(&one, True)
        if rc:
            commit_undo(&one)
        commit_free(&one)
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
        rc = capture_blob(commit, blob, False)
        blob = blob.next
    if rc == -ENOSPC:
        drop_captured(commit)
        rc = commit_one_by_one(store)
    elif rc == 0:
        rc = commit_write(commit, True)
    if rc:
        commit_undo(commit)
    return rc


cdef int commit_locked(store_t *store) noexcept nogil:
    cdef commit_t commit
    cdef int rc
    memset(&commit, 0, sizeof(commit_t))
    commit.store = store
    rc = commit_run(&commit, False)
    commit_free(&commit)
    return rc


cdef int commit_blob(blob_t *blob) noexcept nogil:
    cdef store_t *store = blob.store
    cdef commit_t commit
    cdef int rc
    if load32(&store.failed):
        return -<int> load32(&store.failed)
    memset(&commit, 0, sizeof(commit_t))
    commit.store = store
    rc = capture_blob(&commit, blob, True)
    if rc == 0:
        rc = commit_write(&commit, False)
    if rc:
        commit_undo(&commit)
    commit_free(&commit)
    return rc


cdef void commit_forget(blob_t *blob) noexcept nogil:
    cdef store_t *store = blob.store
    cdef blob_t **at = &store.blobs
    while at[0] != NULL:
        if at[0] == blob:
            at[0] = blob.next
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
        rc = device_pwrite(store.dev, zeros, MD_PAGE, page_offset(blob, blob.chain[0]))
    if rc == 0:
        rc = barrier(store)
    if rc:
        return rc
    for i in range(blob.chain_length):
        zero_and_release_page(store, blob.chain[i])
    for i in range(blob.num_extents):
        defer_extent(store, blob.extents[i])
    # Requests through handles that are still open find an empty blob.
    blob.num_clusters = 0
    blob.num_extents = 0
    blob.owned = 0
    blob.map_dirty = 0
    store32(&store.dirty, 1)
    commit_forget(blob)
    return 0


cdef int flush_once(store_t *store) noexcept nogil:
    cdef commit_t commit
    cdef int rc
    memset(&commit, 0, sizeof(commit_t))
    commit.store = store
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
