"""The two checksums, on memory and over the clusters of an endpoint."""

from libc.stdint cimport uint64_t

cdef enum:
    ALGORITHM_XXH3 = 1
    ALGORITHM_CRC64 = 2


# CRC-64/ISO reflected, chained through `seed`; 0 to begin with.
cdef uint64_t crc64_of(const void *data, uint64_t length, uint64_t seed) noexcept nogil
# XXH3-64, seed 0.
cdef uint64_t xxh3_64_of(const void *data, uint64_t length) noexcept nogil
