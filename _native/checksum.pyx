"""CRC-64/ISO and XXH3-64 of clusters, and of a snapshot out of those of its clusters.

A CRC is linear, so the CRC of a sequence of equally long pieces follows from theirs:
crc(A + B) = crc(A) * x^(8 len(B)) + crc(B) over GF(2). The multiplication by the constant
is done bytewise with eight tables of 256 words.
"""

import os

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from lvolfs._native.control cimport (
    Control, background_enter, background_leave, control_pace, control_t, control_yield,
)
from lvolfs._native.endpoint cimport (
    Endpoint, endpoint_gate, endpoint_has, endpoint_is_hole, endpoint_read, endpoint_t,
)
from lvolfs._native.sync cimport add64, seconds_now
from lvolfs._native.work_list cimport (
    piece_buffers, work_list_fill, work_list_free, work_list_stop, work_list_t, work_list_take,
)

cdef extern from "hashes.h" nogil:
    ctypedef struct XXH3_state_t:
        pass
    uint64_t xxh3_of(const void *data, size_t length) noexcept
    int xxh3_add(XXH3_state_t *state, const void *data, size_t length) noexcept
    XXH3_state_t *XXH3_createState() noexcept
    int XXH3_freeState(XXH3_state_t *state) noexcept
    int XXH3_64bits_reset(XXH3_state_t *state) noexcept
    uint64_t XXH3_64bits_digest(const XXH3_state_t *state) noexcept

cdef extern from "<isa-l/crc64.h>" nogil:
    uint64_t crc64_iso_refl(uint64_t seed, const unsigned char *data, uint64_t length) noexcept

cdef enum:
    SLICE = 1 << 20
    # Entries that go into the snapshot's XXH3 at a time.
    ENTRIES = 512

cdef uint64_t ISO_POLYNOMIAL = 0xD800000000000000


cdef uint64_t crc64_of(const void *data, uint64_t length, uint64_t seed) noexcept nogil:
    return crc64_iso_refl(seed, <const unsigned char *> data, length)


cdef uint64_t xxh3_64_of(const void *data, uint64_t length) noexcept nogil:
    return xxh3_of(data, length)


cdef int hasher_make(hasher_t *hasher, int algorithm) noexcept nogil:
    hasher.algorithm = algorithm
    hasher.value = 0
    hasher.state = NULL
    if algorithm == ALGORITHM_XXH3:
        hasher.state = XXH3_createState()
        if hasher.state == NULL:
            return -ENOMEM
    return 0


cdef void hasher_free(hasher_t *hasher) noexcept nogil:
    if hasher.state != NULL:
        XXH3_freeState(<XXH3_state_t *> hasher.state)
    hasher.state = NULL


cdef void hasher_begin(hasher_t *hasher) noexcept nogil:
    hasher.value = 0
    if hasher.algorithm == ALGORITHM_XXH3:
        XXH3_64bits_reset(<XXH3_state_t *> hasher.state)


cdef void hasher_add(hasher_t *hasher, const void *data, uint64_t length) noexcept nogil:
    if hasher.algorithm == ALGORITHM_XXH3:
        xxh3_add(<XXH3_state_t *> hasher.state, data, length)
    elif hasher.algorithm == ALGORITHM_CRC64:
        hasher.value = crc64_of(data, length, hasher.value)


cdef uint64_t hasher_end(hasher_t *hasher) noexcept nogil:
    if hasher.algorithm == ALGORITHM_XXH3:
        hasher.value = XXH3_64bits_digest(<XXH3_state_t *> hasher.state)
    return hasher.value


cdef uint64_t matrix_times(const uint64_t *matrix, uint64_t vector) noexcept nogil:
    cdef uint64_t total = 0
    cdef int i = 0
    while vector:
        if vector & 1:
            total ^= matrix[i]
        vector >>= 1
        i += 1
    return total


cdef void shift_tables(uint64_t length, uint64_t *tables) noexcept nogil:
    """tables[256 * k + b]: what byte k of a CRC, being b, contributes after `length` zero bytes."""
    cdef uint64_t power[64]
    cdef uint64_t square[64]
    cdef uint64_t total[64]
    cdef uint64_t bits = length * 8
    cdef uint64_t combined
    cdef int i, k, b
    power[0] = ISO_POLYNOMIAL
    for i in range(1, 64):
        power[i] = <uint64_t> 1 << (i - 1)
    for i in range(64):
        total[i] = <uint64_t> 1 << i
    while bits:
        if bits & 1:
            for i in range(64):
                square[i] = matrix_times(power, total[i])
            for i in range(64):
                total[i] = square[i]
        for i in range(64):
            square[i] = matrix_times(power, power[i])
        for i in range(64):
            power[i] = square[i]
        bits >>= 1
    for k in range(8):
        for b in range(256):
            combined = <uint64_t> b << (8 * k)
            tables[256 * k + b] = matrix_times(total, combined)


cdef int algorithm_of(name) except -1:
    if name == "xxh3":
        return ALGORITHM_XXH3
    if name == "crc64":
        return ALGORITHM_CRC64
    raise OSError(EINVAL, f"unknown checksum algorithm {name!r}; there are xxh3 and crc64")


def crc64(const unsigned char[::1] data not None, seed=0):
    cdef uint64_t value = seed
    if data.shape[0]:
        with nogil:
            value = crc64_of(&data[0], data.shape[0], value)
    return value


def xxh3(const unsigned char[::1] data not None):
    cdef uint64_t value
    cdef unsigned char nothing = 0
    cdef const unsigned char *start = &data[0] if data.shape[0] else &nothing
    with nogil:
        value = xxh3_64_of(start, data.shape[0])
    return value


def crc64_combine(const uint64_t[::1] values not None, length):
    cdef uint64_t bytes_each = length
    cdef uint64_t *tables
    cdef uint64_t value = 0
    cdef Py_ssize_t i
    if values.shape[0] == 0:
        return 0
    tables = <uint64_t *> calloc(8 * 256, sizeof(uint64_t))
    if tables == NULL:
        raise MemoryError
    with nogil:
        shift_tables(bytes_each, tables)
        for i in range(values.shape[0]):
            value = (
                tables[value & 255]
                ^ tables[256 + ((value >> 8) & 255)]
                ^ tables[512 + ((value >> 16) & 255)]
                ^ tables[768 + ((value >> 24) & 255)]
                ^ tables[1024 + ((value >> 32) & 255)]
                ^ tables[1280 + ((value >> 40) & 255)]
                ^ tables[1536 + ((value >> 48) & 255)]
                ^ tables[1792 + (value >> 56)]
            ) ^ values[i]
    free(tables)
    return value


def xxh3_combine(const uint32_t[::1] clusters not None, const uint64_t[::1] values not None):
    cdef uint64_t pairs[2 * ENTRIES]
    cdef XXH3_state_t *state
    cdef uint64_t digest
    cdef Py_ssize_t i
    cdef int filled = 0
    if clusters.shape[0] != values.shape[0]:
        raise ValueError("one checksum for each cluster")
    state = XXH3_createState()
    if state == NULL:
        raise MemoryError
    with nogil:
        XXH3_64bits_reset(state)
        for i in range(values.shape[0]):
            pairs[2 * filled] = clusters[i]
            pairs[2 * filled + 1] = values[i]
            filled += 1
            if filled == ENTRIES:
                xxh3_add(state, pairs, sizeof(pairs))
                filled = 0
        if filled:
            xxh3_add(state, pairs, filled * 16)
        digest = XXH3_64bits_digest(state)
    XXH3_freeState(state)
    return digest


def snapshot_checksum(algorithm, clusters, values, cluster_size):
    if algorithm_of(algorithm) == ALGORITHM_CRC64:
        return crc64_combine(values, cluster_size)
    return xxh3_combine(clusters, values)


def zero_cluster(algorithm, cluster_size):
    cdef uint64_t value = 0
    cdef uint64_t length = cluster_size
    cdef int kind = algorithm_of(algorithm)
    cdef int rc
    with nogil:
        rc = zeros_checksum(kind, length, &value)
    if rc < 0:
        raise MemoryError
    return value


cdef int zeros_checksum(int algorithm, uint64_t length, uint64_t *value) noexcept nogil:
    cdef uint64_t room = min(length, <uint64_t> SLICE)
    cdef uint64_t done = 0
    cdef hasher_t hasher
    cdef void *zeros
    cdef int rc
    value[0] = 0
    if algorithm == ALGORITHM_NONE:
        return 0
    zeros = calloc(1, room if room else 1)
    rc = hasher_make(&hasher, algorithm)
    if zeros == NULL:
        rc = -ENOMEM
    if rc == 0:
        hasher_begin(&hasher)
        while done < length:
            room = min(length - done, <uint64_t> SLICE)
            hasher_add(&hasher, zeros, room)
            done += room
        value[0] = hasher_end(&hasher)
    hasher_free(&hasher)
    free(zeros)
    return rc


cdef class ChecksumLoop:
    cdef Endpoint endpoint
    cdef Control control
    cdef int algorithm
    cdef uint32_t cluster_size
    cdef uint64_t zeros            # checksum of a cluster of zeros
    cdef work_list_t list
    cdef uint64_t *values          # one for each item of the list
    cdef readonly long failed_cluster

    def __cinit__(self, Endpoint endpoint not None, algorithm, const uint32_t[::1] clusters not None,
                  cluster_size, Control control not None):
        cdef uint64_t count = clusters.shape[0]
        cdef int rc
        endpoint._usable()
        self.endpoint = endpoint
        self.control = control
        self.algorithm = algorithm_of(algorithm)
        self.cluster_size = cluster_size
        self.failed_cluster = -1
        rc = work_list_fill(&self.list, &clusters[0] if count else NULL, count)
        self.values = <uint64_t *> malloc(max(count, <uint64_t> 1) * sizeof(uint64_t))
        if rc < 0 or self.values == NULL:
            raise MemoryError
        with nogil:
            rc = zeros_checksum(self.algorithm, self.cluster_size, &self.zeros)
        if rc < 0:
            raise MemoryError

    def __dealloc__(self):
        work_list_free(&self.list)
        free(self.values)

    def run(self):
        cdef int rc
        cdef int32_t failed = -1
        with nogil:
            rc = self.work(&failed)
        if rc < 0:
            if failed >= 0:
                self.failed_cluster = failed
            where = f"cluster {self.failed_cluster} of " if failed >= 0 else ""
            raise OSError(-rc, f"reading {where}{self.endpoint.name}: {os.strerror(-rc)}")

    def values_bytes(self):
        return (<char *> self.values)[:self.list.count * sizeof(uint64_t)]

    cdef int work(self, int32_t *failed) noexcept nogil:
        cdef control_t *control = &self.control.raw
        cdef hasher_t hasher
        cdef uint64_t i, room
        cdef void *buf = piece_buffers(self.cluster_size, SLICE, 1, &room)
        cdef int rc = hasher_make(&hasher, self.algorithm)
        if buf == NULL:
            rc = -ENOMEM
        while rc == 0 and work_list_take(&self.list, &i):
            rc = self.hash_one(control, self.list.clusters[i], buf, &hasher, &self.values[i])
            if rc < 0:
                failed[0] = <int32_t> self.list.clusters[i]
            else:
                add64(&control.hashed, 1)
        if rc < 0:
            work_list_stop(&self.list)
        hasher_free(&hasher)
        free(buf)
        return rc

    cdef int hash_one(self, control_t *control, uint32_t c, void *buf, hasher_t *hasher,
                      uint64_t *value) noexcept nogil:
        cdef endpoint_t *e = &self.endpoint.raw
        cdef uint64_t base = <uint64_t> c * self.cluster_size
        cdef uint64_t done = 0, part
        cdef double begun
        cdef int rc
        rc = endpoint_has(e, c)
        if rc < 0:
            return rc
        rc = control_pace(control, 0)
        if rc < 0:
            return rc
        if endpoint_is_hole(e, c, self.cluster_size):
            # Past the end of a file that has shrunk there is no data either, but no zeros.
            rc = endpoint_read(e, buf, base + self.cluster_size - 1, 1)
            if rc < 0:
                return rc
            value[0] = self.zeros
            return 0
        hasher_begin(hasher)
        while done < self.cluster_size:
            part = min(self.cluster_size - done, <uint64_t> SLICE)
            rc = control_pace(control, part)
            if rc < 0:
                return rc
            begun = seconds_now()
            background_enter()
            rc = endpoint_read(e, buf, base + done, part)
            background_leave()
            if rc < 0:
                return rc
            add64(&control.bytes_read, part)
            hasher_add(hasher, buf, part)
            control_yield(control, endpoint_gate(e), seconds_now() - begun)
            done += part
        value[0] = hasher_end(hasher)
        return 0
