"""Changes of a blob's shape in memory: size, and whose the clusters are.

Only with the gate closed and commit_lock held. All return 0 or -errno, and change nothing
on an error. `commit_blob` makes them durable.
"""

from libc.stdint cimport uint32_t

from lvolfs._native.cluster_map cimport blob_t


# A thick blob gets zeroed clusters for what is new; what is cut off is freed by the next flush.
cdef int shape_resize(blob_t *blob, uint32_t num_clusters) noexcept nogil
# Gives back at once all that a blob which was never written to the device has claimed.
cdef void shape_release_all(blob_t *blob) noexcept nogil
# Exchanges maps and extent pages of two blobs of one size.
cdef int shape_swap(blob_t *a, blob_t *b) noexcept nogil
# The child takes every cluster of the parent that it lacks, and the parent's extent pages
# where it has none itself. The parent keeps naming them until shape_drop_shared.
cdef int shape_merge(blob_t *child, blob_t *parent) noexcept nogil
cdef void shape_drop_shared(blob_t *parent, blob_t *child) noexcept nogil
