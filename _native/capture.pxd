"""What changed in the maps, as it is to be on the device.

A capture is taken while requests go on: it takes each mark of a change away before it reads what
was marked, so that a change is in this capture or marked for the next one.
"""

from libc.stdint cimport uint8_t, uint32_t

from lvolfs._native.cluster_map cimport blob_t, store_t
from lvolfs._native.metadata cimport chain_image_t


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


ctypedef struct capture_t:
    store_t *store
    extent_write_t *extents
    uint32_t extent_count
    uint32_t extent_room
    chain_write_t *chains
    uint32_t chain_count
    uint32_t chain_room


cdef void capture_begin(capture_t *capture, store_t *store) noexcept nogil
# Adds what changed in one blob, with `whole` its chain in any case, and clears its marks.
# -ENOSPC: no pages for the chain, -ENOMEM; what was added before the error is in the capture.
cdef int capture_blob(capture_t *capture, blob_t *blob, bint whole) noexcept nogil
# Marks what was captured as to be captured again, and forgets it.
cdef void capture_drop(capture_t *capture) noexcept nogil
cdef void capture_free(capture_t *capture) noexcept nogil
# Pages of the blob's chain on the device beside its root.
cdef uint32_t continuation_pages(blob_t *blob) noexcept nogil
