"""A blob from disk, taken over by a fresh store in memory."""

from libc.stdint cimport uint32_t

from lvolfs._native.cluster_map cimport blob_t


# The map of a new blob: 512 u32 by extent, and the metadata page of each extent that has one.
# Every extent that owns anything needs a page, but in a blob kept as RLE.
cdef int set_extents(blob_t *blob, dict clusters, dict pages) except -1
cdef int set_chain(blob_t *blob, chain) except -1
# Marks the blob's metadata pages and clusters as used, without those that `shared` has at the
# same place, and appends the pages to `marked`; the second returns how many clusters it owns.
# OSError(ERANGE or EEXIST) for what cannot be the blob's; then no cluster is marked.
cdef int mark_pages_of(blob_t *blob, blob_t *shared, list marked) except -1
cdef uint32_t mark_clusters_of(blob_t *blob, blob_t *shared) except? 0xFFFFFFFF
