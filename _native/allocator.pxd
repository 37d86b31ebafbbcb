"""Bitmap allocator for clusters and metadata pages: lowest free first, as SPDK's."""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.sync cimport pthread_mutex_t


ctypedef struct allocator_t:
    pthread_mutex_t mutex
    uint64_t *words        # one bit an item, 1 = used
    uint32_t length        # items
    uint32_t free          # items not used (pending ones are used)
    uint32_t hint          # no free item below this one
    uint32_t *pending      # freed, but not to be handed out before the next commit
    uint32_t pending_count
    uint32_t pending_room


cdef int allocator_init(allocator_t *a, uint32_t length) noexcept nogil
cdef void allocator_destroy(allocator_t *a) noexcept nogil
# The lowest free item >= `lowest`, or -ENOSPC.
cdef long allocator_claim(allocator_t *a, uint32_t lowest) noexcept nogil
# The same, but the last `keep` free items are left alone.
cdef long allocator_claim_beyond(
    allocator_t *a, uint32_t lowest, uint32_t keep
) noexcept nogil
cdef int allocator_grow(allocator_t *a, uint32_t length) noexcept nogil
# Marks one item used; 0, -EEXIST when it was used already, -ERANGE past the end.
cdef int allocator_mark(allocator_t *a, uint32_t item) noexcept nogil
# Gives one item back at once: only for items that no durable metadata names.
cdef void allocator_release(allocator_t *a, uint32_t item) noexcept nogil
# Puts one item on the pending list; -ENOMEM leaves it used (a leak until reload).
cdef int allocator_defer(allocator_t *a, uint32_t item) noexcept nogil
# Takes the pending list over (caller frees it); 0 items gives NULL.
cdef uint32_t *allocator_take_pending(allocator_t *a, uint32_t *count) noexcept nogil
# How many items are free, and how many are freed but pending.
cdef uint32_t allocator_free(allocator_t *a) noexcept nogil
cdef uint32_t allocator_pending(allocator_t *a) noexcept nogil
