"""The clusters that a background loop works through, taken one by one by its threads."""

from libc.stdint cimport uint32_t, uint64_t


ctypedef struct work_list_t:
    uint32_t *clusters
    uint64_t count
    uint64_t next           # the first item that no thread has taken yet
    uint32_t stopped        # a thread met an error, the others leave too


# A copy of `clusters`; 0 or -ENOMEM. Free it in any case.
cdef int work_list_fill(work_list_t *list, const uint32_t *clusters, uint64_t count) noexcept nogil
cdef void work_list_free(work_list_t *list) noexcept nogil
# Gives the caller an item to itself; False when there is none left or the list is stopped.
cdef bint work_list_take(work_list_t *list, uint64_t *item) noexcept nogil
cdef void work_list_stop(work_list_t *list) noexcept nogil

# Page-aligned memory for `pieces` parts of a cluster, each of at most `most` bytes; the bytes
# of one in *room. NULL when out of memory.
cdef void *piece_buffers(
    uint32_t cluster_size, uint64_t most, uint64_t pieces, uint64_t *room
) noexcept nogil
