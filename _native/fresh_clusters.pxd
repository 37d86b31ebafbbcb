"""Space of the host for clusters that small writes fill.

A small first write to a cluster leaves the rest of it a hole in the store's file, and on ext4 a
write into a hole is a third slower than one into space that is there. So the second write to
such a cluster lets the host reserve all of it in one step, which takes as long as two writes do.
Not the first write: of many clusters it is the only one.

It is an advance only. A table of few entries knows the clusters; one that loses its entry to
another, or for which the host has little room, is filled as slowly as without it.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.device cimport device_t
from lvolfs._native.sync cimport load32

cdef enum:
    FRESH_CLUSTERS = 4096


ctypedef struct fresh_t:
    uint32_t[4096] clusters     # the device's, each where its number modulo the length says; or 0


# After the first write to a cluster, of a part of it: the next one shall reserve the rest.
cdef void fresh_add(fresh_t *fresh, device_t *dev, uint32_t cluster) noexcept nogil
# Before any other write to an owned cluster that fresh_has: reserves it, once.
cdef void fresh_reserve(
    fresh_t *fresh, device_t *dev, uint32_t cluster, uint64_t cluster_size
) noexcept nogil


cdef inline bint fresh_has(fresh_t *fresh, uint32_t cluster) noexcept nogil:
    return load32(&fresh.clusters[cluster % FRESH_CLUSTERS]) == cluster
