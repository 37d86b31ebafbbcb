"""The clusters that a background loop works through, taken one by one by its threads."""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lvolfs._native.sync cimport add64, load32, store32

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size) noexcept


cdef int work_list_fill(work_list_t *list, const uint32_t *clusters, uint64_t count) noexcept nogil:
    memset(list, 0, sizeof(work_list_t))
    list.clusters = <uint32_t *> malloc(max(count, <uint64_t> 1) * sizeof(uint32_t))
    if list.clusters == NULL:
        return -ENOMEM
    if count:
        memcpy(list.clusters, clusters, count * sizeof(uint32_t))
    list.count = count
    return 0


cdef void work_list_free(work_list_t *list) noexcept nogil:
    free(list.clusters)
    list.clusters = NULL


cdef bint work_list_take(work_list_t *list, uint64_t *item) noexcept nogil:
    if load32(&list.stopped):
        return False
    item[0] = add64(&list.next, 1)
    return item[0] < list.count


cdef void work_list_stop(work_list_t *list) noexcept nogil:
    store32(&list.stopped, 1)


cdef void *piece_buffers(
    uint32_t cluster_size, uint64_t most, uint64_t pieces, uint64_t *room
) noexcept nogil:
    room[0] = (min(<uint64_t> cluster_size, most) + 4095) & ~<uint64_t> 4095
    return aligned_alloc(4096, pieces * room[0])
