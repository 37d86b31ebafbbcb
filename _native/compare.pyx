"""Comparing clusters of two endpoints by reading both."""

import os

from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from lvolfs._native.control cimport (
    Control, background_enter, background_leave, control_pace, control_t, control_yield, now_seconds,
)
from lvolfs._native.endpoint cimport Endpoint, endpoint_gate, endpoint_read, endpoint_t
from lvolfs._native.sync cimport add64, load32, store32

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size) noexcept

cdef enum:
    SLICE = 1 << 20


cdef class CompareLoop:
    cdef Endpoint left
    cdef Endpoint right
    cdef Control control
    cdef uint32_t cluster_size
    cdef uint64_t count
    cdef uint32_t *clusters
    cdef uint8_t *differs
    cdef uint64_t next             # the first item that no thread has taken yet
    cdef uint32_t stopped          # a thread met an error, the others leave too

    def __cinit__(self, Endpoint left not None, Endpoint right not None,
                  const uint32_t[::1] clusters not None, cluster_size, Control control not None):
        left._usable()
        right._usable()
        self.left = left
        self.right = right
        self.control = control
        self.cluster_size = cluster_size
        self.count = clusters.shape[0]
        self.clusters = <uint32_t *> calloc(max(self.count, 1), sizeof(uint32_t))
        self.differs = <uint8_t *> calloc(max(self.count, 1), 1)
        if self.clusters == NULL or self.differs == NULL:
            raise MemoryError
        if self.count:
            memcpy(self.clusters, &clusters[0], self.count * sizeof(uint32_t))

    def __dealloc__(self):
        free(self.clusters)
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
        return (<char *> self.differs)[:self.count]

    cdef int work(self, int32_t *failed, bint *on_left) noexcept nogil:
        cdef control_t *control = &self.control.raw
        cdef uint64_t room = (min(self.cluster_size, <uint32_t> SLICE) + 4095) & ~<uint64_t> 4095
        cdef char *bufs = <char *> aligned_alloc(4096, 2 * room)
        cdef uint64_t i
        cdef int rc = 0
        if bufs == NULL:
            rc = -ENOMEM
        while rc == 0 and not load32(&self.stopped):
            i = add64(&self.next, 1)
            if i >= self.count:
                break
            rc = self.compare_one(control, self.clusters[i], bufs, bufs + room, &self.differs[i], on_left)
            if rc < 0:
                failed[0] = <int32_t> self.clusters[i]
            else:
                add64(&control.hashed, 1)
        if rc < 0:
            store32(&self.stopped, 1)
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
            begun = now_seconds()
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
            took = now_seconds() - begun
            control_yield(control, endpoint_gate(left), took)
            control_yield(control, endpoint_gate(right), took)
            done += part
        return 0
