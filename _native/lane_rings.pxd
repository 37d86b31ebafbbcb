"""FUSE over io_uring: the second way from the kernel to the lane's answers.

Each of the kernel's queues (one for each possible CPU, taken by requests of tasks that run
there) is served by a few threads. Each thread has a ring of its own and keeps one entry
waiting in it, so a thread that is busy or blocks holds up no request but its own. A request
that Python answers takes its entry along; the thread then registers another one.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.lane_requests cimport counters_t, entry_t, inbox_t
from lvolfs._native.lane_threads cimport MAX_RING_ENTRIES, lane_t, pthread_t

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
    uint32_t made            # entries
    uint32_t waiting         # entries that the kernel has
    bint lost                # the connection is gone
    entry_t *entries[MAX_RING_ENTRIES]
    pthread_t thread
    bint running
    counters_t counters


# A ring with one entry for a queue; NULL and errno's negative in `error` otherwise.
cdef ring_t *ring_new(lane_t *lane, uint32_t queue, int *error) noexcept nogil
# After its thread has ended, and every other one that might reply.
cdef void ring_free(ring_t *ring) noexcept nogil
# Lets the thread go on to look whether it may start, or has to end.
cdef void ring_wake(ring_t *ring) noexcept nogil
# Serves from the moment that the lane says so until the connection ends; a ring_t.
cdef void *ring_main(void *argument) noexcept nogil
