"""What changed in the maps, as it is to be on the device."""

from libc.errno cimport ENOMEM, ENOSPC
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from lvolfs._native.allocator cimport allocator_claim, allocator_free, allocator_release
from lvolfs._native.cluster_map cimport map_extent_page
from lvolfs._native.metadata cimport MD_PAGE, chain_build, chain_free, chain_seal, extent_image
from lvolfs._native.sync cimport load8, load32, load64, store8, store32, swap8, swap32


cdef void capture_begin(capture_t *capture, store_t *store) noexcept nogil:
    memset(capture, 0, sizeof(capture_t))
    capture.store = store


cdef int capture_extent(
    capture_t *capture, blob_t *blob, uint32_t extent, uint32_t page
) noexcept nogil:
    cdef extent_write_t *extents
    cdef uint8_t *image
    cdef uint32_t room
    if capture.extent_count == capture.extent_room:
        room = capture.extent_room * 2 if capture.extent_room else 16
        extents = <extent_write_t *> realloc(capture.extents, room * sizeof(extent_write_t))
        if extents == NULL:
            return -ENOMEM
        capture.extents = extents
        capture.extent_room = room
    image = <uint8_t *> malloc(MD_PAGE)
    if image == NULL:
        return -ENOMEM
    extent_image(blob, extent, image)
    capture.extents[capture.extent_count].blob = blob
    capture.extents[capture.extent_count].extent = extent
    capture.extents[capture.extent_count].page = page
    capture.extents[capture.extent_count].image = image
    capture.extent_count += 1
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
    capture_t *capture, blob_t *blob, const uint32_t *extent_pages, bint whole
) noexcept nogil:
    cdef chain_write_t *chains
    cdef chain_write_t *chain
    cdef uint32_t room, i
    cdef long page
    cdef int rc
    if capture.chain_count == capture.chain_room:
        room = capture.chain_room * 2 if capture.chain_room else 4
        chains = <chain_write_t *> realloc(capture.chains, room * sizeof(chain_write_t))
        if chains == NULL:
            return -ENOMEM
        capture.chains = chains
        capture.chain_room = room
    chain = &capture.chains[capture.chain_count]
    memset(chain, 0, sizeof(chain_write_t))
    chain.blob = blob
    rc = chain_build(&chain.image, blob, extent_pages)
    if rc:
        return rc
    # Counted from here on, so that an error below gives everything back.
    capture.chain_count += 1
    chain.indices = <uint32_t *> malloc(4 * <uint64_t> chain.image.count)
    if chain.indices == NULL:
        return -ENOMEM
    # What the data path made longer is accepted already, new metadata may be refused.
    if whole and not leaves_reserve(capture.store, blob, chain.image.count - 1):
        return -ENOSPC
    chain.indices[0] = <uint32_t> blob.id
    for i in range(1, chain.image.count):
        page = allocator_claim(&capture.store.pages, 1)
        if page < 0:
            return <int> page
        chain.indices[i] = <uint32_t> page
        chain.claimed = i
    chain_seal(&chain.image, blob.id, chain.indices)
    return 0


cdef int capture_blob(capture_t *capture, blob_t *blob, bint whole) noexcept nogil:
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
                rc = capture_extent(capture, blob, extent, page)
            if page == 0 or rc:
                # Being claimed just now: its owner's write is not finished.
                store8(&blob.extent_dirty[extent], 1)
                store32(&blob.map_dirty, 1)
        extent += 1
    if rc == 0 and chain:
        rc = capture_chain(capture, blob, table, whole)
    if rc:
        store32(&blob.map_dirty, 1)
        if chain:
            store32(&blob.table_dirty, 1)
    free(table)
    return rc


cdef void free_captured(capture_t *capture) noexcept nogil:
    cdef uint32_t i
    for i in range(capture.extent_count):
        free(capture.extents[i].image)
    for i in range(capture.chain_count):
        chain_free(&capture.chains[i].image)
        free(capture.chains[i].indices)
    capture.extent_count = 0
    capture.chain_count = 0


cdef void capture_drop(capture_t *capture) noexcept nogil:
    cdef uint32_t i, k
    cdef blob_t *blob
    for i in range(capture.extent_count):
        blob = capture.extents[i].blob
        store8(&blob.extent_dirty[capture.extents[i].extent], 1)
        store32(&blob.map_dirty, 1)
    for i in range(capture.chain_count):
        blob = capture.chains[i].blob
        store32(&blob.table_dirty, 1)
        store32(&blob.map_dirty, 1)
        for k in range(1, capture.chains[i].claimed + 1):
            allocator_release(&capture.store.pages, capture.chains[i].indices[k])
    free_captured(capture)
    store32(&capture.store.dirty, 1)
    store32(&capture.store.written, 1)


cdef void capture_free(capture_t *capture) noexcept nogil:
    free_captured(capture)
    free(capture.extents)
    free(capture.chains)
