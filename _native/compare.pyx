"""Comparing clusters of two endpoints by reading both."""

import os

from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from lvolfs._native.control cimport (
    Control, background_enter, background_leave, control_pace, control_t, control_yield,
)
from lvolfs._native.endpoint cimport Endpoint, endpoint_gate, endpoint_read, endpoint_t
from lvolfs._native.sync cimport add64, seconds_now
from lvolfs._native.work_list cimport (
    piece_buffers, work_list_fill, work_list_free, work_list_stop, work_list_t, work_list_take,
)

cdef enum:
    SLICE = 1 << 20


cdef class CompareLoop:
    cdef Endpoint left
    cdef Endpoint right
    cdef Control control
    cdef uint32_t cluster_size
    cdef work_list_t list
    cdef uint8_t *differs          # one for each item of the list

    def __cinit__(self, Endpoint left not None, Endpoint right not None,
                  const uint32_t[::1] clusters not None, cluster_size, Control control not None):
        cdef uint64_t count = clusters.shape[0]
        cdef int rc
        left._usable()
        right._usable()
        self.left = left
        self.right = right
        self.control = control
        self.cluster_size = cluster_size
        rc = work_list_fill(&self.list, &clusters[0] if count else NULL, count)
        self.differs = <uint8_t *> calloc(max(count, <uint64_t> 1), 1)
        if rc < 0 or self.differs == NULL:
            raise MemoryError

    def __dealloc__(self):
        work_list_free(&self.list)
        free(self.differs)

    def run(self):
        cdef int rc
        cdef int32_t failed = -1
        cdef bint on_left = True
        with nogil:
            rc = self.work(&failed, &on_left)
        if rc < 0:
            name = self.left.name if on_left else self.right.name
            where = f"cluster {failed} of " if failed >= 0 else ""
            raise OSError(-rc, f"reading {where}{name}: {os.strerror(-rc)}")

    def differs_bytes(self):
        return (<char *> self.differs)[:self.list.count]

    cdef int work(self, int32_t *failed, bint *on_left) noexcept nogil:
        cdef control_t *control = &self.control.raw
        cdef uint64_t i, room
        cdef char *bufs = <char *> piece_buffers(self.cluster_size, SLICE, 2, &room)
        cdef uint32_t c
        cdef int rc = 0
        if bufs == NULL:
            rc = -ENOMEM
        while rc == 0 and work_list_take(&self.list, &i):
            c = self.list.clusters[i]
            rc = self.compare_one(control, c, bufs, bufs + room, &self.differs[i], on_left)
            if rc < 0:
                failed[0] = <int32_t> c
            else:
                add64(&control.hashed, 1)
        if rc < 0:
            work_list_stop(&self.list)
        free(bufs)
        return rc

    cdef int compare_one(self, control_t *control, uint32_t c, void *one, void *other,
                         uint8_t *differs, bint *on_left) noexcept nogil:
        cdef endpoint_t *left = &self.left.raw
        cdef endpoint_t *right = &self.right.raw
        cdef uint64_t base = <uint64_t> c * self.cluster_size
        cdef uint64_t done = 0, part
        cdef double begun, took
        cdef int rc
        while done < self.cluster_size:
            part = min(self.cluster_size - done, <uint64_t> SLICE)
            rc = control_pace(control, 2 * part)
            if rc < 0:
                return rc
            begun = seconds_now()
            background_enter()
            on_left[0] = True
            rc = endpoint_read(left, one, base + done, part)
            if rc == 0:
                on_left[0] = False
                rc = endpoint_read(right, other, base + done, part)
            background_leave()
            if rc < 0:
                return rc
            add64(&control.bytes_read, 2 * part)
            if memcmp(one, other, part) != 0:
                differs[0] = 1
                return 0
            took = seconds_now() - begun
            control_yield(control, endpoint_gate(left), took)
            control_yield(control, endpoint_gate(right), took)
            done += part
        return 0
