"""Errors that tests make a device report, to see what becomes of them."""

from libc.errno cimport ENOSPC
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lvolfs._native.sync cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef device_faults_t *device_faults_new() noexcept nogil:
    cdef device_faults_t *faults = <device_faults_t *> calloc(1, sizeof(device_faults_t))
    if faults != NULL:
        pthread_mutex_init(&faults.mutex, NULL)
    return faults


cdef void device_faults_free(device_faults_t *faults) noexcept nogil:
    if faults != NULL:
        pthread_mutex_destroy(&faults.mutex)
        free(faults)


cdef int device_faults_add(device_faults_t *faults, const device_fault_t *fault) noexcept nogil:
    cdef int rc = 0
    pthread_mutex_lock(&faults.mutex)
    if faults.count == DEVICE_FAULTS:
        rc = -ENOSPC
    else:
        faults.faults[faults.count] = fault[0]
        faults.count += 1
    pthread_mutex_unlock(&faults.mutex)
    return rc


cdef void device_faults_clear(device_faults_t *faults) noexcept nogil:
    pthread_mutex_lock(&faults.mutex)
    faults.count = 0
    pthread_mutex_unlock(&faults.mutex)


cdef int device_fault(
    device_faults_t *faults, uint32_t kind, uint64_t offset, uint64_t length, uint64_t *cut
) noexcept nogil:
    cdef device_fault_t *fault
    cdef uint32_t i
    cdef int rc = 0
    cut[0] = 0
    pthread_mutex_lock(&faults.mutex)
    for i in range(faults.count):
        fault = &faults.faults[i]
        if not fault.kind & kind:
            continue
        if kind != FAULT_FLUSH and (offset >= fault.end or offset + length <= fault.first):
            continue
        if fault.skip:
            fault.skip -= 1
        elif fault.times:
            fault.times -= 1
            faults.injected += 1
            rc = -fault.error
            cut[0] = fault.cut
            break
    pthread_mutex_unlock(&faults.mutex)
    return rc
