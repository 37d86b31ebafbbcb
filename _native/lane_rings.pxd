"""FUSE over io_uring: the second way from the kernel to the lane's answers.

Each of the kernel's queues (one for each possible CPU, taken by requests of tasks that run
there) is served by a few threads. Each has a ring of its own with a single entry, so a thread
that is busy or blocks holds up no request but its own: the kernel would hand the requests of a
second entry to a thread that cannot take them. While Python has the request in an entry, its
thread waits for the answer, and another thread and ring take its place. Those stay, as an
entry cannot be taken back from the kernel.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.lane_requests cimport counters_t, entry_t, inbox_t
from lvolfs._native.lane_threads cimport lane_t, pthread_t

cdef extern from "io_ring.h" nogil:
    ctypedef struct io_ring_t:
        pass


ctypedef struct ring_t:
    lane_t *lane
    io_ring_t io
    inbox_t inbox
    uint64_t inbox_count     # read from its eventfd
    uint32_t index
    uint32_t queue
    bint lost                # the connection is gone, or the entry is
    entry_t *entry
    pthread_t thread
    bint running
    counters_t counters


# The next ring, with its entry, for a queue; NULL and errno's negative in `error` otherwise. For
# one thread at a time, as the next one: rings_mutex.
cdef ring_t *ring_new(lane_t *lane, uint32_t queue, int *error) noexcept nogil
# Counts it, as its thread runs or will: from now on it is woken, and waited for at the end.
cdef void ring_add(ring_t *ring) noexcept nogil
# After its thread has ended, and every other one that might reply.
cdef void ring_free(ring_t *ring) noexcept nogil
# Lets the thread go on to look whether it may start, or has to end.
cdef void ring_wake(ring_t *ring) noexcept nogil
# Serves from the moment that the lane says so until the connection ends; a ring_t.
cdef void *ring_main(void *argument) noexcept nogil
