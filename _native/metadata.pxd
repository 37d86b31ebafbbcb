"""Metadata pages as SPDK lays them out: extent pages and blob chains, with their CRC32C."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t

cdef enum:
    MD_PAGE = 4096              # bytes of a metadata page, whatever its slot size
    MD_DESCRIPTORS = 4072       # bytes of its descriptor area


# A blob's chain, serialized; page i of it goes to the metadata page that seal is told.
ctypedef struct chain_image_t:
    uint8_t *pages              # count * MD_PAGE bytes
    uint32_t count
    uint32_t room
    uint32_t used               # bytes of the last page's descriptor area


cdef uint32_t crc32c(const void *data, uint64_t length) noexcept nogil
cdef bint page_crc_is_right(const uint8_t *page) noexcept nogil
# Offset of `page` from the start of the device.
cdef uint64_t page_offset(blob_t *blob, uint32_t page) noexcept nogil

# Serializes extent `extent` of the blob as it is in memory now.
cdef void extent_image(blob_t *blob, uint32_t extent, uint8_t *page) noexcept nogil
# Reads extent `extent` of `num_clusters` from a page; NULL, or why it cannot be trusted.
cdef const char *extent_parse(
    const uint8_t *page, uint32_t extent, uint32_t num_clusters, uint32_t *clusters
) noexcept nogil

# Serializes head, extent table (from `extent_pages`) or RLE, and checksums; 0 or -ENOMEM.
cdef int chain_build(
    chain_image_t *image, blob_t *blob, const uint32_t *extent_pages
) noexcept nogil
cdef void chain_seal(chain_image_t *image, uint64_t blob_id, const uint32_t *indices) noexcept nogil
cdef void chain_free(chain_image_t *image) noexcept nogil
