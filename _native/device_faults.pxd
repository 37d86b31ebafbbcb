"""Errors that tests make a device report, to see what becomes of them.

A device without any has `faults` NULL; only Device.plant_fault sets it.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.sync cimport pthread_mutex_t

cdef enum:
    FAULT_READ = 1
    FAULT_WRITE = 2             # zeroing is writing
    FAULT_FLUSH = 4
    DEVICE_FAULTS = 16


ctypedef struct device_fault_t:
    uint32_t kind
    int error                   # errno
    uint64_t first              # bytes of the device that it is about; all for a flush
    uint64_t end
    uint64_t skip               # requests that still go through
    uint64_t times              # requests that still fail
    uint64_t cut                # bytes that are transferred all the same, before it fails


ctypedef struct device_faults_t:
    pthread_mutex_t mutex
    uint32_t count
    uint64_t injected           # requests that failed
    device_fault_t[16] faults


cdef device_faults_t *device_faults_new() noexcept nogil
cdef void device_faults_free(device_faults_t *faults) noexcept nogil
# 0 or -ENOSPC when there are DEVICE_FAULTS already.
cdef int device_faults_add(device_faults_t *faults, const device_fault_t *fault) noexcept nogil
cdef void device_faults_clear(device_faults_t *faults) noexcept nogil
# What the request has to fail with: -errno, or 0 when it goes through. `cut`, unless it is 0:
# the kernel is asked for no more than so many bytes first, which is all when it fails then.
cdef int device_fault(
    device_faults_t *faults, uint32_t kind, uint64_t offset, uint64_t length, uint64_t *cut
) noexcept nogil
