"""CRC-64/ISO and XXH3-64 of clusters, and of a snapshot out of those of its clusters.

A CRC is linear, so the CRC of a sequence of equally long pieces follows from theirs:
crc(A + B) = crc(A) * x^(8 len(B)) + crc(B) over GF(2). The multiplication by the constant
is done bytewise with eight tables of 256 words.
"""

import os

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lvolfs._native.control cimport (
    Control, background_enter, background_leave, control_pace, control_t, control_yield,
    now_seconds,
)
from lvolfs._native.endpoint cimport (
    Endpoint, endpoint_gate, endpoint_has, endpoint_is_hole, endpoint_read, endpoint_t,
)
from lvolfs._native.sync cimport add64, load32, store32

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

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size) noexcept

cdef enum:
    SLICE = 1 << 20
    # Entries that go into the snapshot's XXH3 at a time.
    ENTRIES = 512

cdef uint64_t ISO_POLYNOMIAL = 0xD800000000000000


cdef uint64_t crc64_of(const void *data, uint64_t length, uint64_t seed) noexcept nogil:
    return crc64_iso_refl(seed, <const unsigned char *> data, length)


cdef uint64_t xxh3_64_of(const void *data, uint64_t length) noexcept nogil:
    return xxh3_of(data, length)


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
    cdef XXH3_state_t *state = NULL
    cdef void *zeros = calloc(1, room if room else 1)
    if zeros == NULL:
        return -ENOMEM
    value[0] = 0
    if algorithm == ALGORITHM_XXH3:
        state = XXH3_createState()
        if state == NULL:
            free(zeros)
            return -ENOMEM
        XXH3_64bits_reset(state)
    while done < length:
        room = min(length - done, <uint64_t> SLICE)
        if algorithm == ALGORITHM_XXH3:
            xxh3_add(state, zeros, room)
        else:
            value[0] = crc64_of(zeros, room, value[0])
        done += room
    if algorithm == ALGORITHM_XXH3:
        value[0] = XXH3_64bits_digest(state)
        XXH3_freeState(state)
    free(zeros)
    return 0


cdef class ChecksumLoop:
    cdef Endpoint endpoint
    cdef Control control
    cdef int algorithm
    cdef uint32_t cluster_size
    cdef uint64_t count
    cdef uint64_t zeros            # checksum of a cluster of zeros
    cdef uint32_t *clusters
    cdef uint64_t *values
    cdef uint64_t next             # the first item that no thread has taken yet
    cdef uint32_t stopped          # a thread met an error, the others leave too
    cdef readonly long failed_cluster

    def __cinit__(self, Endpoint endpoint not None, algorithm, const uint32_t[::1] clusters not None,
                  cluster_size, Control control not None):
        cdef Py_ssize_t i
        cdef int rc
        endpoint._usable()
        self.endpoint = endpoint
        self.control = control
        self.algorithm = algorithm_of(algorithm)
        self.cluster_size = cluster_size
        self.count = clusters.shape[0]
        self.failed_cluster = -1
        self.clusters = <uint32_t *> calloc(max(self.count, 1), sizeof(uint32_t))
        self.values = <uint64_t *> calloc(max(self.count, 1), sizeof(uint64_t))
        if self.clusters == NULL or self.values == NULL:
            raise MemoryError
        for i in range(<Py_ssize_t> self.count):
            self.clusters[i] = clusters[i]
        with nogil:
            rc = zeros_checksum(self.algorithm, self.cluster_size, &self.zeros)
        if rc < 0:
            raise MemoryError

    def __dealloc__(self):
        free(self.clusters)
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
        return (<char *> self.values)[:self.count * sizeof(uint64_t)]

    cdef int work(self, int32_t *failed) noexcept nogil:
        cdef control_t *control = &self.control.raw
        cdef endpoint_t *e = &self.endpoint.raw
        cdef uint64_t room = (min(self.cluster_size, <uint32_t> SLICE) + 4095) & ~<uint64_t> 4095
        cdef void *buf = aligned_alloc(4096, room)
        cdef XXH3_state_t *state = XXH3_createState()
        cdef uint64_t i
        cdef int rc = 0
        if buf == NULL or state == NULL:
            rc = -ENOMEM
        while rc == 0 and not load32(&self.stopped):
            i = add64(&self.next, 1)
            if i >= self.count:
                break
            rc = self.hash_one(control, e, self.clusters[i], buf, state, &self.values[i])
            if rc < 0:
                failed[0] = <int32_t> self.clusters[i]
                break
            add64(&control.hashed, 1)
        if rc < 0:
            store32(&self.stopped, 1)
        XXH3_freeState(state)
        free(buf)
        return rc

    cdef int hash_one(self, control_t *control, endpoint_t *e, uint32_t c, void *buf,
                      XXH3_state_t *state, uint64_t *value) noexcept nogil:
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
        value[0] = 0
        XXH3_64bits_reset(state)
        while done < self.cluster_size:
            part = min(self.cluster_size - done, <uint64_t> SLICE)
            rc = control_pace(control, part)
            if rc < 0:
                return rc
            begun = now_seconds()
            background_enter()
            rc = endpoint_read(e, buf, base + done, part)
            background_leave()
            if rc < 0:
                return rc
            add64(&control.bytes_read, part)
            if self.algorithm == ALGORITHM_CRC64:
                value[0] = crc64_of(buf, part, value[0])
            elif part == self.cluster_size:
                value[0] = xxh3_64_of(buf, part)
            else:
                xxh3_add(state, buf, part)
            control_yield(control, endpoint_gate(e), now_seconds() - begun)
            done += part
        if self.algorithm == ALGORITHM_XXH3 and self.cluster_size > <uint32_t> SLICE:
            value[0] = XXH3_64bits_digest(state)
        return 0
