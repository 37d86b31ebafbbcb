"""The copy loop: clusters of one endpoint to the same offsets of another."""

import os

from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from lvolfs._native.checksum cimport (
    ALGORITHM_NONE, algorithm_of, hasher_add, hasher_begin, hasher_end, hasher_free, hasher_make,
    hasher_t, zeros_checksum,
)
from lvolfs._native.control cimport (
    Control, background_enter, background_leave, control_pace, control_t, control_yield,
)
from lvolfs._native.endpoint cimport (
    Endpoint, endpoint_flush, endpoint_gate, endpoint_has, endpoint_is_hole, endpoint_read,
    endpoint_start_writeback, endpoint_t, endpoint_unmap_cluster, endpoint_write,
)
from lvolfs._native.sync cimport add64, seconds_now
from lvolfs._native.work_list cimport (
    piece_buffers, work_list_fill, work_list_free, work_list_stop, work_list_t, work_list_take,
)

cdef enum:
    # A thin destination takes a cluster of its own at the first write to it, so clusters of
    # SPDK's default size go in one piece.
    SLICE = 4 << 20
    ACTION_COPY = 1
    ACTION_UNMAP = 2
    SIDE_NONE = 0
    SIDE_SOURCE = 1
    SIDE_DESTINATION = 2

COPY = ACTION_COPY
UNMAP = ACTION_UNMAP


cdef class CopyLoop:
    cdef Endpoint source
    cdef Endpoint destination
    cdef Control control
    cdef uint32_t cluster_size
    cdef int algorithm
    cdef bint sparse               # what is a hole at the source becomes one
    cdef uint64_t zeros            # checksum of a cluster of zeros
    cdef work_list_t list
    cdef uint8_t *actions          # one for each item of the list
    cdef uint64_t *values          # the same
    cdef readonly long failed_cluster
    cdef readonly object failed_side

    def __cinit__(self, Endpoint source not None, Endpoint destination not None,
                  const uint32_t[::1] clusters not None, const uint8_t[::1] actions not None,
                  cluster_size, Control control not None, *, algorithm=None, sparse=False):
        cdef uint64_t count = clusters.shape[0]
        cdef Py_ssize_t i
        cdef int rc
        source._usable()
        destination._usable()
        if clusters.shape[0] != actions.shape[0]:
            raise ValueError("one action for each cluster")
        self.source = source
        self.destination = destination
        self.control = control
        source.watch(control)
        destination.watch(control)
        self.cluster_size = cluster_size
        self.algorithm = ALGORITHM_NONE if algorithm is None else algorithm_of(algorithm)
        self.sparse = sparse
        self.failed_cluster = -1
        self.failed_side = None
        for i in range(<Py_ssize_t> count):
            if actions[i] != ACTION_COPY and actions[i] != ACTION_UNMAP:
                raise OSError(EINVAL, f"cluster {clusters[i]} is neither to copy nor to unmap")
        rc = work_list_fill(&self.list, &clusters[0] if count else NULL, count)
        self.actions = <uint8_t *> malloc(max(count, <uint64_t> 1))
        self.values = <uint64_t *> malloc(max(count, <uint64_t> 1) * sizeof(uint64_t))
        if rc < 0 or self.actions == NULL or self.values == NULL:
            raise MemoryError
        with nogil:
            rc = zeros_checksum(self.algorithm, self.cluster_size, &self.zeros)
        if rc < 0:
            raise MemoryError
        if count:
            memcpy(self.actions, &actions[0], count)

    def __dealloc__(self):
        work_list_free(&self.list)
        free(self.actions)
        free(self.values)

    def run(self):
        cdef int rc
        cdef int32_t failed = -1
        cdef int side = SIDE_NONE
        with nogil:
            rc = self.work(&failed, &side)
        if rc < 0:
            self._fail(rc, failed, side)

    def values_bytes(self):
        return (<char *> self.values)[:self.list.count * sizeof(uint64_t)]

    def flush(self):
        cdef int rc
        with nogil:
            rc = endpoint_flush(&self.destination.raw)
        if rc < 0:
            self._fail(rc, -1, SIDE_DESTINATION)

    def _fail(self, int rc, int32_t failed, int side):
        reason = os.strerror(-rc)
        if side == SIDE_NONE:
            raise OSError(-rc, f"copying {self.source.name} to {self.destination.name}: {reason}")
        name, verb = (
            (self.source.name, "reading") if side == SIDE_SOURCE
            else (self.destination.name, "writing")
        )
        self.failed_side = "source" if side == SIDE_SOURCE else "destination"
        if failed < 0:
            raise OSError(-rc, f"flushing {name}: {reason}")
        self.failed_cluster = failed
        raise OSError(-rc, f"{verb} cluster {failed} of {name}: {reason}")

    cdef int work(self, int32_t *failed, int *side) noexcept nogil:
        cdef control_t *control = &self.control.raw
        cdef hasher_t hasher
        cdef uint64_t i, room
        cdef void *buf = piece_buffers(self.cluster_size, SLICE, 1, &room)
        cdef uint32_t c
        cdef int rc = hasher_make(&hasher, self.algorithm)
        if buf == NULL:
            rc = -ENOMEM
        while rc == 0 and work_list_take(&self.list, &i):
            c = self.list.clusters[i]
            rc = control_pace(control, 0)
            if rc < 0:
                break
            self.values[i] = 0
            if self.actions[i] == ACTION_COPY:
                rc = self.copy_one(control, c, buf, &hasher, &self.values[i], side)
            else:
                background_enter()
                rc = endpoint_unmap_cluster(&self.destination.raw, c, self.cluster_size)
                background_leave()
                if rc < 0:
                    side[0] = SIDE_DESTINATION
            if rc < 0:
                failed[0] = <int32_t> c
                break
            add64(&control.copied if self.actions[i] == ACTION_COPY else &control.unmapped, 1)
        if rc < 0:
            work_list_stop(&self.list)
        hasher_free(&hasher)
        free(buf)
        return rc

    cdef int copy_one(self, control_t *control, uint32_t c, void *buf, hasher_t *hasher,
                      uint64_t *value, int *side) noexcept nogil:
        cdef endpoint_t *source = &self.source.raw
        cdef endpoint_t *destination = &self.destination.raw
        cdef uint64_t base = <uint64_t> c * self.cluster_size
        cdef uint64_t done = 0, part
        cdef double begun, took
        cdef int rc
        rc = endpoint_has(source, c)
        if rc < 0:
            side[0] = SIDE_SOURCE
            return rc
        if self.sparse and endpoint_is_hole(source, c, self.cluster_size):
            value[0] = self.zeros
            return self.copy_hole(c, buf, side)
        hasher_begin(hasher)
        while done < self.cluster_size:
            part = min(self.cluster_size - done, <uint64_t> SLICE)
            rc = control_pace(control, part)
            if rc < 0:
                return rc
            begun = seconds_now()
            background_enter()
            rc = endpoint_read(source, buf, base + done, part)
            if rc < 0:
                side[0] = SIDE_SOURCE
            else:
                add64(&control.bytes_read, part)
                hasher_add(hasher, buf, part)
                rc = self.write_piece(buf, base + done, part)
                if rc < 0:
                    side[0] = SIDE_DESTINATION
                else:
                    add64(&control.bytes_written, part)
            background_leave()
            if rc < 0:
                return rc
            took = seconds_now() - begun
            control_yield(control, endpoint_gate(source), took)
            control_yield(control, endpoint_gate(destination), took)
            done += part
        value[0] = hasher_end(hasher)
        return 0

    cdef int copy_hole(self, uint32_t c, void *buf, int *side) noexcept nogil:
        cdef uint64_t last = (<uint64_t> c + 1) * self.cluster_size - 1
        cdef int rc
        background_enter()
        # Past the end of a file that has shrunk there is no data either, but no zeros.
        rc = endpoint_read(&self.source.raw, buf, last, 1)
        if rc < 0:
            side[0] = SIDE_SOURCE
        else:
            rc = endpoint_unmap_cluster(&self.destination.raw, c, self.cluster_size)
            if rc < 0:
                side[0] = SIDE_DESTINATION
        background_leave()
        return rc

    cdef int write_piece(self, const void *buf, uint64_t offset, uint64_t length) noexcept nogil:
        cdef endpoint_t *destination = &self.destination.raw
        cdef int rc = endpoint_write(destination, buf, offset, length)
        if rc == 0:
            endpoint_start_writeback(destination, offset, length)
        return rc
