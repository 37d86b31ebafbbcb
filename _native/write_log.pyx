"""What a device was told, in order: the recording under a power-cut replay."""

from libc.errno cimport EINTR, errno as c_errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lvolfs._native.sync cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    store32,
)


cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *buf, size_t count)
    int close(int fd)

cdef extern from "<fcntl.h>" nogil:
    int open(const char *path, int flags, int mode)
    enum:
        O_WRONLY
        O_CREAT
        O_TRUNC
        O_CLOEXEC


ctypedef struct entry_t:
    uint32_t kind
    uint32_t reserved
    uint64_t offset
    uint64_t length


cdef write_log_t *write_log_open(const char *path) noexcept nogil:
    cdef write_log_t *log = <write_log_t *> calloc(1, sizeof(write_log_t))
    if log == NULL:
        return NULL
    log.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    if log.fd < 0:
        free(log)
        return NULL
    pthread_mutex_init(&log.mutex, NULL)
    return log


cdef void write_log_close(write_log_t *log) noexcept nogil:
    close(log.fd)
    pthread_mutex_destroy(&log.mutex)
    free(log)


cdef void write_log_lock(write_log_t *log) noexcept nogil:
    pthread_mutex_lock(&log.mutex)


cdef void write_log_unlock(write_log_t *log) noexcept nogil:
    pthread_mutex_unlock(&log.mutex)


cdef void append_bytes(write_log_t *log, const void *data, uint64_t length) noexcept nogil:
    cdef const char *at = <const char *> data
    cdef ssize_t put
    while length:
        put = write(log.fd, at, length)
        if put < 0:
            if c_errno == EINTR:
                continue
            store32(&log.failed, <uint32_t> c_errno)
            return
        at += put
        length -= <uint64_t> put


cdef void write_log_append(
    write_log_t *log, uint32_t kind, uint64_t offset, uint64_t length, const void *data
) noexcept nogil:
    cdef entry_t entry
    entry.kind = kind
    entry.reserved = 0
    entry.offset = offset
    entry.length = length
    append_bytes(log, &entry, sizeof(entry_t))
    if kind == LOG_WRITE:
        append_bytes(log, data, length)
