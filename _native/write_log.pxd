"""What a device was told, in order: the recording under a power-cut replay.

A log is a file of entries {u32 kind, u32 reserved 0, u64 offset, u64 length} with, after a
LOG_WRITE, its `length` bytes. An entry is appended once its request has completed, and
requests of a recorded device are done one after the other, so the order is total.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.sync cimport pthread_mutex_t

cdef enum:
    LOG_WRITE = 1
    LOG_ZERO = 2
    LOG_DISCARD = 3
    LOG_FLUSH = 4
    LOG_MARK = 5                # by the test: offset is its number


ctypedef struct write_log_t:
    int fd
    uint32_t failed             # errno of an entry that could not be appended
    pthread_mutex_t mutex       # held around a request and its entry


cdef write_log_t *write_log_open(const char *path) noexcept nogil
cdef void write_log_close(write_log_t *log) noexcept nogil
cdef void write_log_lock(write_log_t *log) noexcept nogil
cdef void write_log_unlock(write_log_t *log) noexcept nogil
cdef void write_log_append(
    write_log_t *log, uint32_t kind, uint64_t offset, uint64_t length, const void *data
) noexcept nogil
