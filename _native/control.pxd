"""The handle by which a background loop is watched, slowed and stopped."""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.sync cimport gate_t, pthread_mutex_t


ctypedef struct control_t:
    uint32_t cancelled
    uint64_t copied             # clusters
    uint64_t unmapped           # clusters
    uint64_t hashed             # clusters
    uint64_t bytes_read
    uint64_t bytes_written
    uint64_t rate               # bytes a second, 0 = as fast as it goes
    pthread_mutex_t mutex       # guards the one below
    double paid_until           # monotonic seconds at which all bytes so far are due


# Waits until `length` more bytes are within the rate; -ECANCELED when cancelled.
cdef int control_pace(control_t *control, uint64_t length) noexcept nogil
# Steps back for as long as the last slice took when others are using the store.
cdef void control_yield(control_t *control, const gate_t *gate, double slice_seconds) noexcept nogil
# Every background loop brackets its store requests with these two, so that loops do not
# take each other for somebody to step back for.
cdef void background_enter() noexcept nogil
cdef void background_leave() noexcept nogil


cdef class Control:
    cdef control_t raw
