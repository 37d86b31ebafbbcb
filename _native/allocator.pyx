"""Bitmap allocator for clusters and metadata pages: lowest free first, as SPDK's."""

from libc.errno cimport EEXIST, ENOMEM, ENOSPC, ERANGE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from lvolfs._native.sync cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef extern from *:
    """
    static inline int lowest_zero(uint64_t word) { return __builtin_ctzll(~word); }
    """
    int lowest_zero(uint64_t word) noexcept nogil

cdef enum:
    ALL_USED = 0xFFFFFFFFFFFFFFFF


cdef int allocator_init(allocator_t *a, uint32_t length) noexcept nogil:
    cdef uint64_t word_count = (<uint64_t> length + 63) // 64
    a.words = <uint64_t *> calloc(word_count + 1, 8)
    if a.words == NULL:
        return -ENOMEM
    # The bits past the end are never free.
    if length % 64:
        a.words[word_count - 1] = (<uint64_t> ALL_USED) << (length % 64)
    a.length = length
    a.free = length
    a.hint = 0
    a.pending = NULL
    a.pending_count = 0
    a.pending_room = 0
    pthread_mutex_init(&a.mutex, NULL)
    return 0


cdef void allocator_destroy(allocator_t *a) noexcept nogil:
    if a.words == NULL:
        return
    free(a.words)
    free(a.pending)
    a.words = NULL
    a.pending = NULL
    pthread_mutex_destroy(&a.mutex)


cdef int allocator_grow(allocator_t *a, uint32_t length) noexcept nogil:
    cdef uint64_t old_words, new_words, i
    cdef uint64_t *words
    if length <= a.length:
        return 0
    pthread_mutex_lock(&a.mutex)
    old_words = (<uint64_t> a.length + 63) // 64
    new_words = (<uint64_t> length + 63) // 64
    words = <uint64_t *> realloc(a.words, (new_words + 1) * 8)
    if words == NULL:
        pthread_mutex_unlock(&a.mutex)
        return -ENOMEM
    a.words = words
    for i in range(old_words, new_words + 1):
        words[i] = 0
    if a.length % 64:
        words[old_words - 1] &= ~((<uint64_t> ALL_USED) << (a.length % 64))
    if length % 64:
        words[new_words - 1] |= (<uint64_t> ALL_USED) << (length % 64)
    a.free += length - a.length
    a.length = length
    pthread_mutex_unlock(&a.mutex)
    return 0


cdef long allocator_claim(allocator_t *a, uint32_t lowest) noexcept nogil:
    return allocator_claim_beyond(a, lowest, 0)


cdef long allocator_claim_beyond(
    allocator_t *a, uint32_t lowest, uint32_t keep
) noexcept nogil:
    cdef uint32_t start, item
    cdef uint64_t word_count = (<uint64_t> a.length + 63) // 64
    cdef uint64_t i, word
    cdef long found = -ENOSPC
    pthread_mutex_lock(&a.mutex)
    start = lowest if lowest > a.hint else a.hint
    i = start // 64
    if a.free > keep and i < word_count:
        word = a.words[i]
        if start % 64:
            word |= ((<uint64_t> 1) << (start % 64)) - 1
        while True:
            if word != <uint64_t> ALL_USED:
                item = <uint32_t> (i * 64) + lowest_zero(word)
                a.words[i] |= (<uint64_t> 1) << (item % 64)
                a.free -= 1
                if start == a.hint:
                    a.hint = item + 1
                found = item
                break
            i += 1
            if i >= word_count:
                break
            word = a.words[i]
    pthread_mutex_unlock(&a.mutex)
    return found


cdef int allocator_mark(allocator_t *a, uint32_t item) noexcept nogil:
    cdef int rc = 0
    cdef uint64_t bit = (<uint64_t> 1) << (item % 64)
    if item >= a.length:
        return -ERANGE
    pthread_mutex_lock(&a.mutex)
    if a.words[item // 64] & bit:
        rc = -EEXIST
    else:
        a.words[item // 64] |= bit
        a.free -= 1
    pthread_mutex_unlock(&a.mutex)
    return rc


cdef void allocator_release(allocator_t *a, uint32_t item) noexcept nogil:
    cdef uint64_t bit = (<uint64_t> 1) << (item % 64)
    pthread_mutex_lock(&a.mutex)
    if item < a.length and a.words[item // 64] & bit:
        a.words[item // 64] &= ~bit
        a.free += 1
        if item < a.hint:
            a.hint = item
    pthread_mutex_unlock(&a.mutex)


cdef int allocator_defer(allocator_t *a, uint32_t item) noexcept nogil:
    cdef uint32_t room
    cdef uint32_t *grown
    cdef int rc = 0
    pthread_mutex_lock(&a.mutex)
    if a.pending_count == a.pending_room:
        room = a.pending_room * 2 if a.pending_room else 256
        grown = <uint32_t *> realloc(a.pending, <uint64_t> room * 4)
        if grown == NULL:
            rc = -ENOMEM
        else:
            a.pending = grown
            a.pending_room = room
    if rc == 0:
        a.pending[a.pending_count] = item
        a.pending_count += 1
    pthread_mutex_unlock(&a.mutex)
    return rc


cdef uint32_t *allocator_take_pending(allocator_t *a, uint32_t *count) noexcept nogil:
    cdef uint32_t *taken
    pthread_mutex_lock(&a.mutex)
    taken = a.pending
    count[0] = a.pending_count
    a.pending = NULL
    a.pending_count = 0
    a.pending_room = 0
    pthread_mutex_unlock(&a.mutex)
    return taken


cdef uint32_t allocator_free(allocator_t *a) noexcept nogil:
    cdef uint32_t count
    pthread_mutex_lock(&a.mutex)
    count = a.free
    pthread_mutex_unlock(&a.mutex)
    return count


cdef uint32_t allocator_pending(allocator_t *a) noexcept nogil:
    cdef uint32_t count
    pthread_mutex_lock(&a.mutex)
    count = a.pending_count
    pthread_mutex_unlock(&a.mutex)
    return count
