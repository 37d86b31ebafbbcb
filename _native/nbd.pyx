"""libnbd's synchronous calls, without the GIL."""

import os

from libc.errno cimport EIO
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from "libnbd.h" nogil:
    int LIBNBD_SIZE_MAXIMUM
    nbd_handle *nbd_create() noexcept
    void nbd_close(nbd_handle *h) noexcept
    int nbd_connect_uri(nbd_handle *h, const char *uri) noexcept
    int nbd_shutdown(nbd_handle *h, unsigned int flags) noexcept
    const char *nbd_get_error() noexcept
    int nbd_get_errno() noexcept
    int64_t nbd_get_size(nbd_handle *h) noexcept
    int64_t nbd_get_block_size(nbd_handle *h, int size_type) noexcept
    int nbd_is_read_only(nbd_handle *h) noexcept
    int nbd_can_zero(nbd_handle *h) noexcept
    int nbd_can_flush(nbd_handle *h) noexcept
    int nbd_pread(nbd_handle *h, void *buf, size_t count, uint64_t offset, unsigned int flags) noexcept
    int nbd_pwrite(nbd_handle *h, const void *buf, size_t count, uint64_t offset,
                   unsigned int flags) noexcept
    int nbd_zero(nbd_handle *h, uint64_t count, uint64_t offset, unsigned int flags) noexcept
    int nbd_flush(nbd_handle *h, unsigned int flags) noexcept

cdef enum:
    # What every server takes by the protocol's rule when it announces nothing.
    MAX_REQUEST = 32 << 20
    ZEROES = 1 << 20


cdef int last_errno() noexcept nogil:
    cdef int code = nbd_get_errno()
    return -code if code > 0 else -EIO


cdef int nbd_target_read(nbd_target_t *target, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t done = 0, part
    while done < length:
        part = min(length - done, <uint64_t> target.max_request)
        if nbd_pread(target.handle, <char *> buf + done, part, offset + done, 0) < 0:
            return last_errno()
        done += part
    return 0


cdef int nbd_target_write(nbd_target_t *target, const void *buf, uint64_t offset,
                          uint64_t length) noexcept nogil:
    cdef uint64_t done = 0, part
    while done < length:
        part = min(length - done, <uint64_t> target.max_request)
        if nbd_pwrite(target.handle, <const char *> buf + done, part, offset + done, 0) < 0:
            return last_errno()
        done += part
    return 0


cdef int nbd_target_zero(nbd_target_t *target, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t done = 0, part
    cdef void *zeros
    cdef int rc = 0
    if target.can_zero:
        while done < length:
            part = min(length - done, <uint64_t> target.max_request)
            if nbd_zero(target.handle, part, offset + done, 0) < 0:
                return last_errno()
            done += part
        return 0
    zeros = calloc(1, ZEROES)
    if zeros == NULL:
        return -12
    while done < length and rc == 0:
        part = min(length - done, <uint64_t> ZEROES)
        rc = nbd_target_write(target, zeros, offset + done, part)
        done += part
    free(zeros)
    return rc


cdef int nbd_target_flush(nbd_target_t *target) noexcept nogil:
    if target.can_flush and nbd_flush(target.handle, 0) < 0:
        return last_errno()
    return 0


cdef class NbdTarget:
    def __cinit__(self, str uri not None):
        cdef bytes text = os.fsencode(uri)
        cdef const char *raw_uri = text
        cdef int rc
        cdef int64_t limit
        memset(&self.raw, 0, sizeof(nbd_target_t))
        self.uri = uri
        if b"\0" in text:
            raise OSError(22, f"NBD URI {uri!r} has a NUL character in it")
        self.raw.handle = nbd_create()
        if self.raw.handle == NULL:
            raise self._error("cannot be opened")
        with nogil:
            rc = nbd_connect_uri(self.raw.handle, raw_uri)
        if rc < 0:
            raise self._error("cannot be reached")
        limit = nbd_get_size(self.raw.handle)
        if limit < 0:
            raise self._error("does not tell its size")
        self.raw.size = <uint64_t> limit
        self._read_only = nbd_is_read_only(self.raw.handle) != 0
        self.raw.can_zero = nbd_can_zero(self.raw.handle) > 0
        self.raw.can_flush = nbd_can_flush(self.raw.handle) > 0
        limit = nbd_get_block_size(self.raw.handle, LIBNBD_SIZE_MAXIMUM)
        self.raw.max_request = <unsigned int> limit if 0 < limit < MAX_REQUEST else MAX_REQUEST

    def __dealloc__(self):
        if self.raw.handle != NULL:
            with nogil:
                nbd_close(self.raw.handle)
            self.raw.handle = NULL

    def _error(self, str what):
        cdef const char *text = nbd_get_error()
        cdef int code = nbd_get_errno()
        detail = text.decode("utf-8", "replace") if text != NULL else "unknown error"
        return OSError(code if code > 0 else EIO, f"NBD server {self.uri} {what}: {detail}")

    def _open(self):
        if self.raw.handle == NULL:
            raise ValueError(f"NBD connection to {self.uri} is closed")

    @property
    def size(self):
        return self.raw.size

    @property
    def read_only(self):
        return self._read_only

    @property
    def can_flush(self):
        return bool(self.raw.can_flush)

    @property
    def closed(self):
        return self.raw.handle == NULL

    def pread(self, length, offset):
        cdef uint64_t at = offset, count = length
        cdef int rc
        self._open()
        data = bytearray(length)
        cdef unsigned char[::1] view = data
        if count:
            with nogil:
                rc = nbd_target_read(&self.raw, &view[0], at, count)
            if rc < 0:
                raise self._error("cannot be read")
        return bytes(data)

    def close(self):
        """Waits for the server to end the session. Endpoints that use it must be gone."""
        if self.raw.handle == NULL:
            return
        with nogil:
            nbd_shutdown(self.raw.handle, 0)
            nbd_close(self.raw.handle)
        self.raw.handle = NULL

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
