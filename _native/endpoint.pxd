"""One side of a copy or comparison: a blob, a file descriptor or an NBD export.

Blob requests pass the store's gate one by one, so no gate is held while the other side
is read or written.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t
from lvolfs._native.control cimport Control
from lvolfs._native.nbd cimport nbd_target_t
from lvolfs._native.sync cimport gate_t

cdef enum:
    ENDPOINT_CLOSED = 0
    ENDPOINT_BLOB = 1
    ENDPOINT_FILE = 2
    ENDPOINT_NBD = 3


ctypedef struct endpoint_t:
    int kind
    bint own_layer          # a blob's own clusters only: asking for others is an error
    blob_t *blob
    int fd
    uint64_t file_size      # of a file or block device, bytes
    nbd_target_t *nbd


cdef uint64_t endpoint_size(endpoint_t *e) noexcept nogil
cdef const gate_t *endpoint_gate(endpoint_t *e) noexcept nogil
# All return 0 or -errno. What is read past the end is zeros.
cdef int endpoint_read(endpoint_t *e, void *buf, uint64_t offset, uint64_t length) noexcept nogil
cdef int endpoint_write(endpoint_t *e, const void *buf, uint64_t offset, uint64_t length) noexcept nogil
# Cluster `c` counted in `cluster_size`. SPDK's rule for a blob whose own clusters fit in there
# (see blob_unmap_cluster); elsewhere the range reads as zeros afterwards.
cdef int endpoint_unmap_cluster(endpoint_t *e, uint32_t c, uint32_t cluster_size) noexcept nogil
# Lets the kernel begin to write to the medium what endpoint_write has put there, so that a
# flush at the end finds little left to do. Promises nothing: an error shows in that flush.
cdef void endpoint_start_writeback(endpoint_t *e, uint64_t offset, uint64_t length) noexcept nogil
cdef int endpoint_flush(endpoint_t *e) noexcept nogil
# 0, or -ENODATA for a cluster that an own-layer endpoint does not own.
cdef int endpoint_has(endpoint_t *e, uint32_t c) noexcept nogil
# 1 when the whole cluster is known to be zeros without reading it.
cdef bint endpoint_is_hole(endpoint_t *e, uint32_t c, uint32_t cluster_size) noexcept nogil


cdef class Endpoint:
    cdef endpoint_t raw
    cdef readonly str name
    cdef object _owner          # keeps the blob or connection alive
    # A job's cancellation ends requests that its other side may never answer.
    cdef watch(self, Control control)
