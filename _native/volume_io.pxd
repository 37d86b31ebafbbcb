"""The data path of one blob: byte-granular, any offset and length, many threads.

Functions that begin with blob_ pass the store's gate, so none may be called from inside it. All
return 0 or -errno: -EINVAL past the end, -EROFS for a read-only blob, -ENOSPC for a full store.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t, store_t


cdef int blob_read(blob_t *blob, void *buf, uint64_t offset, uint64_t length) noexcept nogil
cdef int blob_write(blob_t *blob, const void *buf, uint64_t offset, uint64_t length) noexcept nogil
# Reads cluster `c` of this blob's own layer; -ENODATA when it does not own it.
cdef int blob_read_own(blob_t *blob, uint32_t c, void *buf) noexcept nogil
# Everything written to the store before the call is durable when it returns 0.
cdef int blob_flush(blob_t *blob) noexcept nogil

# For volume_space, inside of the gate. Whether the range may be accessed: 0 or -errno.
cdef int check_range(blob_t *blob, uint64_t offset, uint64_t length, bint write) noexcept nogil
# A write (`data` NULL: zeros) to a cluster that the blob did not own when it was looked at;
# without a length it only gets the cluster, with what it shows.
cdef int write_first(
    blob_t *blob, uint32_t c, uint64_t start, const void *data, uint64_t length
) noexcept nogil
# The same to device cluster `own`, which the blob owns.
cdef int write_owned(
    blob_t *blob, uint32_t own, uint64_t start, const void *data, uint64_t length
) noexcept nogil
# Outside of the gate: `rc` of a write. If the device refused it, every later flush fails, too.
cdef int note_lost_write(blob_t *blob, int rc) noexcept nogil
# After -ENOSPC: whether clusters that were freed could be given back by a commit.
cdef bint worth_retrying(store_t *store) noexcept nogil
