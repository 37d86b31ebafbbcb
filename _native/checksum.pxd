"""The two checksums, on memory and over the clusters of an endpoint."""

from libc.stdint cimport uint64_t

cdef enum:
    ALGORITHM_NONE = 0
    ALGORITHM_XXH3 = 1
    ALGORITHM_CRC64 = 2


# CRC-64/ISO reflected, chained through `seed`; 0 to begin with.
cdef uint64_t crc64_of(const void *data, uint64_t length, uint64_t seed) noexcept nogil
# XXH3-64, seed 0.
cdef uint64_t xxh3_64_of(const void *data, uint64_t length) noexcept nogil

# A checksum taken piece by piece, of one cluster after the other; with ALGORITHM_NONE it is 0.
ctypedef struct hasher_t:
    int algorithm
    void *state             # of XXH3
    uint64_t value

# 0 or -ENOMEM; free it in any case.
cdef int hasher_make(hasher_t *hasher, int algorithm) noexcept nogil
cdef void hasher_free(hasher_t *hasher) noexcept nogil
cdef void hasher_begin(hasher_t *hasher) noexcept nogil
cdef void hasher_add(hasher_t *hasher, const void *data, uint64_t length) noexcept nogil
cdef uint64_t hasher_end(hasher_t *hasher) noexcept nogil

# Of `length` zeros; 0 or -ENOMEM.
cdef int zeros_checksum(int algorithm, uint64_t length, uint64_t *value) noexcept nogil
# By its name; OSError(EINVAL) for one that there is not.
cdef int algorithm_of(name) except -1
