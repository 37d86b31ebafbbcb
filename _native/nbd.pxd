"""A Network Block Device server as a place to copy to."""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.control cimport Control
from lvolfs._native.sync cimport pthread_cond_t, pthread_mutex_t

cdef extern from "libnbd.h" nogil:
    struct nbd_handle:
        pass


ctypedef struct nbd_target_t:
    nbd_handle *handle      # NULL once it is closed, or given up
    pthread_mutex_t lock    # guards every call on the handle, and what follows
    bint polling            # a thread waits for the socket, without the lock
    int wake                # eventfd that ends its wait
    pthread_cond_t polled   # it has waited
    int error               # what requests end with when there is no handle
    const uint32_t *cancelled  # of the job that waits; may be NULL
    double patience         # seconds for which a request may go unanswered
    uint64_t size           # bytes
    uint32_t max_request    # bytes of one request
    bint can_zero
    bint can_flush


# All return 0 or -errno and are safe from several threads: -ETIMEDOUT when the server is silent,
# -ECANCELED when the job was cancelled while it was. The connection is closed then.
cdef int nbd_target_read(nbd_target_t *target, void *buf, uint64_t offset, uint64_t length) noexcept nogil
cdef int nbd_target_write(nbd_target_t *target, const void *buf, uint64_t offset,
                          uint64_t length) noexcept nogil
# Afterwards the range reads as zeros; the server may free its space.
cdef int nbd_target_zero(nbd_target_t *target, uint64_t offset, uint64_t length) noexcept nogil
cdef int nbd_target_flush(nbd_target_t *target) noexcept nogil


cdef class NbdTarget:
    cdef nbd_target_t raw
    cdef readonly str uri
    cdef bint _read_only
    cdef Control _control
    cdef watch(self, Control control)   # whose cancellation ends requests
