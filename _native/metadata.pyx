"""Metadata pages as SPDK lays them out: extent pages and blob chains, with their CRC32C.

Layout: SPDK lib/blob/blobstore.h (struct spdk_blob_md_page and its descriptors). All
integers are little-endian, as is every machine that SPDK runs on.
"""

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from lvolfs._native.cluster_map cimport CLUSTERS_PER_EXTENT, map_extent, map_own


cdef extern from "<isa-l/crc.h>" nogil:
    unsigned int crc32_iscsi(unsigned char *buffer, int length, unsigned int seed)

cdef enum:
    NO_PAGE = 0xFFFFFFFF
    # Offsets in a page.
    AT_SEQUENCE = 8
    AT_DESCRIPTORS = 16
    AT_NEXT = 4088
    AT_CRC = 4092
    # Descriptor header: u8 type, u32 length of what follows.
    HEADER = 5
    TYPE_EXTENT_RLE = 1
    TYPE_EXTENT_TABLE = 5
    TYPE_EXTENT_PAGE = 6
    TYPE_CHECKSUM = 7
    CHECKSUM_RECORD = 12


cdef inline void put32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline void put64(uint8_t *at, uint64_t value) noexcept nogil:
    memcpy(at, &value, 8)


cdef inline uint32_t get32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef uint32_t crc32c(const void *data, uint64_t length) noexcept nogil:
    return ~crc32_iscsi(<unsigned char *> data, <int> length, 0xFFFFFFFFU)


def crc32c_of(const uint8_t[::1] data not None):
    """The same for Python: of superblocks, which are written there."""
    return crc32c(&data[0], data.shape[0]) if data.shape[0] else 0


cdef bint page_crc_is_right(const uint8_t *page) noexcept nogil:
    return get32(page + AT_CRC) == crc32c(page, AT_CRC)


cdef uint64_t page_offset(blob_t *blob, uint32_t page) noexcept nogil:
    return (<uint64_t> blob.store.md_start + page) * blob.store.page_size


cdef void seal_page(uint8_t *page, uint64_t blob_id, uint32_t sequence, uint32_t next) noexcept nogil:
    put64(page, blob_id)
    put32(page + AT_SEQUENCE, sequence)
    put32(page + AT_NEXT, next)
    put32(page + AT_CRC, crc32c(page, AT_CRC))


# -- extent pages

cdef void extent_image(blob_t *blob, uint32_t extent, uint8_t *page) noexcept nogil:
    cdef uint32_t first = extent * CLUSTERS_PER_EXTENT
    cdef uint32_t count = min(<uint32_t> CLUSTERS_PER_EXTENT, blob.num_clusters - first)
    cdef uint8_t *at = page + AT_DESCRIPTORS
    cdef uint32_t i
    memset(page, 0, MD_PAGE)
    at[0] = TYPE_EXTENT_PAGE
    put32(at + 1, 4 + 4 * count)
    put32(at + HEADER, first)
    at += HEADER + 4
    for i in range(count):
        put32(at + 4 * i, map_own(blob, first + i))
    seal_page(page, blob.id, 0, NO_PAGE)


cdef const char *extent_parse(
    const uint8_t *page, uint32_t extent, uint32_t num_clusters, uint32_t *clusters
) noexcept nogil:
    cdef uint32_t first = extent * CLUSTERS_PER_EXTENT
    cdef uint32_t expected = min(<uint32_t> CLUSTERS_PER_EXTENT, num_clusters - first)
    cdef const uint8_t *at = page + AT_DESCRIPTORS
    cdef uint32_t length = get32(at + 1)
    cdef uint32_t count
    if not page_crc_is_right(page):
        return "wrong CRC"
    if get32(page + AT_SEQUENCE) != 0:
        return "sequence number is not 0"
    if get32(page + AT_NEXT) != <uint32_t> NO_PAGE:
        return "has a next page"
    if at[0] != TYPE_EXTENT_PAGE:
        return "first descriptor is not an extent page"
    if length < 4 or length % 4 or length > 4 + 4 * CLUSTERS_PER_EXTENT:
        return "impossible length"
    if get32(at + HEADER) != first:
        return "is of other clusters"
    count = (length - 4) // 4
    # A resize writes the last page before the table: one of the two sizes may be older.
    if count < expected and first + expected < num_clusters:
        return "too few clusters"
    memcpy(clusters, at + HEADER + 4, 4 * min(count, expected))
    return NULL


# -- chains

cdef int add_page(chain_image_t *image) noexcept nogil:
    cdef uint8_t *pages
    cdef uint32_t room
    if image.count == image.room:
        room = image.room * 2 if image.room else 1
        pages = <uint8_t *> realloc(image.pages, <uint64_t> room * MD_PAGE)
        if pages == NULL:
            return -ENOMEM
        image.pages = pages
        image.room = room
    memset(image.pages + <uint64_t> image.count * MD_PAGE, 0, MD_PAGE)
    image.count += 1
    image.used = 0
    return 0


cdef uint8_t *reserve(chain_image_t *image, uint32_t size) noexcept nogil:
    """Room for `size` bytes of a descriptor on one page; NULL when out of memory."""
    cdef uint8_t *at
    if image.used + size > MD_DESCRIPTORS and add_page(image):
        return NULL
    at = image.pages + <uint64_t> (image.count - 1) * MD_PAGE + AT_DESCRIPTORS + image.used
    image.used += size
    return at


cdef uint32_t left_on_page(chain_image_t *image) noexcept nogil:
    return MD_DESCRIPTORS - image.used


cdef int put_head(chain_image_t *image, const uint8_t *head, uint32_t length) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t size
    cdef uint8_t *place
    while at < length:
        if length - at < HEADER:
            return -EINVAL
        size = get32(head + at + 1)
        if size > MD_DESCRIPTORS - HEADER or size > length - at - HEADER:
            return -EINVAL
        size += HEADER
        place = reserve(image, size)
        if place == NULL:
            return -ENOMEM
        memcpy(place, head + at, size)
        at += size
    return 0


cdef uint32_t table_entry(
    const uint32_t *extent_pages, uint32_t num_extents, uint32_t extent, uint32_t *run
) noexcept nogil:
    """The page of one extent and 1, or 0 and how many extents from there have none."""
    cdef uint32_t page = extent_pages[extent]
    run[0] = 1
    if page == 0:
        while extent + run[0] < num_extents and extent_pages[extent + run[0]] == 0:
            run[0] += 1
    return page


cdef int put_extent_table(
    chain_image_t *image, blob_t *blob, const uint32_t *extent_pages
) noexcept nogil:
    cdef uint32_t extent = 0
    cdef uint32_t entries, room, page, run
    cdef uint8_t *header
    cdef uint8_t *place
    while True:
        # At least one entry beside the count, or a page of its own.
        room = left_on_page(image)
        if room < HEADER + 16:
            if add_page(image):
                return -ENOMEM
            room = MD_DESCRIPTORS
        header = reserve(image, HEADER + 8)
        room = (room - HEADER - 8) // 8
        entries = 0
        while extent < blob.num_extents and entries < room:
            page = table_entry(extent_pages, blob.num_extents, extent, &run)
            place = reserve(image, 8)
            put32(place, page)
            put32(place + 4, run)
            extent += run
            entries += 1
        header[0] = TYPE_EXTENT_TABLE
        put32(header + 1, 8 + 8 * entries)
        put64(header + HEADER, blob.num_clusters)
        if extent == blob.num_extents:
            return 0


cdef uint32_t rle_run(blob_t *blob, uint32_t c, uint32_t *first) noexcept nogil:
    """How many clusters from c on are one run: all none, or side by side on the device.

    Writers may fill clusters meanwhile, so each entry is looked at once.
    """
    cdef uint32_t run = 1
    first[0] = map_own(blob, c)
    while c + run < blob.num_clusters:
        if (first[0] == 0 and (c + run) % CLUSTERS_PER_EXTENT == 0
                and map_extent(blob, (c + run) // CLUSTERS_PER_EXTENT) == NULL):
            run += CLUSTERS_PER_EXTENT
            continue
        if map_own(blob, c + run) != (first[0] + run if first[0] else 0):
            break
        run += 1
    return min(run, blob.num_clusters - c)


cdef int put_rle(chain_image_t *image, blob_t *blob) noexcept nogil:
    cdef uint32_t c = 0
    cdef uint32_t entries, room, run, first
    cdef uint8_t *header
    cdef uint8_t *place
    while c < blob.num_clusters:
        room = left_on_page(image)
        if room < HEADER + 8:
            if add_page(image):
                return -ENOMEM
            room = MD_DESCRIPTORS
        header = reserve(image, HEADER)
        room = (room - HEADER) // 8
        entries = 0
        while c < blob.num_clusters and entries < room:
            run = rle_run(blob, c, &first)
            place = reserve(image, 8)
            put32(place, first)
            put32(place + 4, run)
            c += run
            entries += 1
        header[0] = TYPE_EXTENT_RLE
        put32(header + 1, 8 * entries)
    return 0


cdef int put_checksums(chain_image_t *image, blob_t *blob) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t size, room
    cdef uint8_t *place
    while at < blob.checksums_length:
        room = left_on_page(image)
        if room < HEADER + CHECKSUM_RECORD:
            if add_page(image):
                return -ENOMEM
            room = MD_DESCRIPTORS
        size = (room - HEADER) // CHECKSUM_RECORD * CHECKSUM_RECORD
        size = min(size, blob.checksums_length - at)
        place = reserve(image, HEADER + size)
        place[0] = TYPE_CHECKSUM
        put32(place + 1, size)
        memcpy(place + HEADER, blob.checksums + at, size)
        at += size
    return 0


cdef int chain_build(
    chain_image_t *image, blob_t *blob, const uint32_t *extent_pages
) noexcept nogil:
    cdef int rc
    memset(image, 0, sizeof(chain_image_t))
    rc = add_page(image)
    if rc == 0:
        rc = put_head(image, blob.head, blob.head_length)
    if rc == 0:
        if blob.rle:
            rc = put_rle(image, blob)
        else:
            rc = put_extent_table(image, blob, extent_pages)
    if rc == 0:
        rc = put_checksums(image, blob)
    if rc:
        chain_free(image)
    return rc


cdef void chain_seal(
    chain_image_t *image, uint64_t blob_id, const uint32_t *indices
) noexcept nogil:
    cdef uint32_t i, next
    for i in range(image.count):
        next = indices[i + 1] if i + 1 < image.count else <uint32_t> NO_PAGE
        seal_page(image.pages + <uint64_t> i * MD_PAGE, blob_id, i, next)


cdef void chain_free(chain_image_t *image) noexcept nogil:
    free(image.pages)
    image.pages = NULL
    image.count = 0
    image.room = 0
