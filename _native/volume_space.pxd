"""Which clusters a blob owns, by range: given up, taken, overwritten with zeros.

As in volume_io, every function passes the store's gate, and returns 0 or -errno.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t


# Afterwards the range reads as zeros; whole clusters that nothing below shows through are freed.
cdef int blob_unmap(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil
# Afterwards the range reads as zeros; owned clusters stay owned.
cdef int blob_write_zeroes(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil
# Gives the blob clusters of its own for the whole range, with the content it shows now.
cdef int blob_allocate(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil
# SPDK's unmap of one whole cluster: no parent -> freed; with one, an owned cluster is
# zeroed and kept, and one that is not owned is left alone.
cdef int blob_unmap_cluster(blob_t *blob, uint32_t c) noexcept nogil
# Gives the blob cluster `c` of its own if it lacks it and one of its `depth` nearest ancestors
# (0 = any, and the external parent) has it, or, with `zeros`, in any case. For read-only
# blobs, too: the content shown does not change.
cdef int blob_fill(
    blob_t *blob, uint32_t c, uint32_t depth, bint zeros, bint *filled
) noexcept nogil
