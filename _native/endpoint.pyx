"""Reading and writing whole and partial clusters on any of the three kinds of sides."""

import os

from libc.errno cimport EBADF, EINTR, EINVAL, EIO, ENODATA, ENODEV, ENOMEM, EOPNOTSUPP, ERANGE, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.types cimport off_t

from lvolfs._native.cluster_map cimport blob_size, blob_t, map_own
from lvolfs._native.device cimport device_is_hole, device_start_writeback
from lvolfs._native.blob cimport Blob
from lvolfs._native.control cimport Control
from lvolfs._native.nbd cimport (
    NbdTarget, nbd_target_flush, nbd_target_read, nbd_target_write, nbd_target_zero,
)
from lvolfs._native.sync cimport gate_enter, gate_exit, gate_t
from lvolfs._native.volume_io cimport blob_flush, blob_read, blob_write
from lvolfs._native.volume_space cimport blob_unmap, blob_unmap_cluster

cdef extern from "<fcntl.h>" nogil:
    int FALLOC_FL_KEEP_SIZE
    int FALLOC_FL_PUNCH_HOLE
    int FALLOC_FL_ZERO_RANGE
    int SYNC_FILE_RANGE_WRITE
    int sync_file_range(int fd, off_t offset, off_t length, unsigned int flags) noexcept
    int fallocate(int fd, int mode, off_t offset, off_t length) noexcept

cdef extern from "<unistd.h>" nogil:
    int SEEK_DATA
    ssize_t pread(int fd, void *buf, size_t count, off_t offset) noexcept
    ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset) noexcept
    off_t lseek(int fd, off_t offset, int whence) noexcept
    int fdatasync(int fd) noexcept
    int close(int fd) noexcept

cdef extern from "<errno.h>" nogil:
    int ENXIO

cdef enum:
    ZEROES = 1 << 20


cdef int file_read(int fd, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t done = 0
    cdef ssize_t got
    while done < length:
        got = pread(fd, <char *> buf + done, length - done, offset + done)
        if got > 0:
            done += got
        elif got == 0:
            return -EIO
        elif errno != EINTR:
            return -errno
    return 0


cdef int file_write(int fd, const void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t done = 0
    cdef ssize_t put
    while done < length:
        put = pwrite(fd, <const char *> buf + done, length - done, offset + done)
        if put > 0:
            done += put
        elif put == 0:
            return -EIO
        elif errno != EINTR:
            return -errno
    return 0


cdef int file_zero(int fd, uint64_t offset, uint64_t length) noexcept nogil:
    cdef int modes[2]
    cdef int i, rc = 0
    cdef uint64_t done = 0, part
    cdef void *zeros
    modes[0] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    modes[1] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
    for i in range(2):
        while fallocate(fd, modes[i], offset, length) != 0:
            if errno == EINTR:
                continue
            # A block device answers EINVAL or ENODEV where a file system says EOPNOTSUPP.
            if errno not in (EOPNOTSUPP, EINVAL, ENODEV):
                return -errno
            break
        else:
            return 0
    zeros = calloc(1, ZEROES)
    if zeros == NULL:
        return -ENOMEM
    while done < length and rc == 0:
        part = min(length - done, <uint64_t> ZEROES)
        rc = file_write(fd, zeros, offset + done, part)
        done += part
    free(zeros)
    return rc


cdef uint64_t endpoint_size(endpoint_t *e) noexcept nogil:
    if e.kind == ENDPOINT_CLOSED:
        return 0
    if e.kind == ENDPOINT_BLOB:
        return blob_size(e.blob)
    if e.kind == ENDPOINT_NBD:
        return e.nbd.size
    return e.file_size


cdef const gate_t *endpoint_gate(endpoint_t *e) noexcept nogil:
    return &e.blob.store.gate if e.kind == ENDPOINT_BLOB else NULL


cdef int endpoint_read(endpoint_t *e, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t size = endpoint_size(e), inside
    if e.kind == ENDPOINT_CLOSED:
        return -EBADF
    inside = 0 if offset >= size else min(length, size - offset)
    if inside < length:
        memset(<char *> buf + inside, 0, length - inside)
    if inside == 0:
        return 0
    if e.kind == ENDPOINT_BLOB:
        return blob_read(e.blob, buf, offset, inside)
    if e.kind == ENDPOINT_NBD:
        return nbd_target_read(e.nbd, buf, offset, inside)
    return file_read(e.fd, buf, offset, inside)


cdef int endpoint_write(endpoint_t *e, const void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    if e.kind == ENDPOINT_BLOB:
        return blob_write(e.blob, buf, offset, length)
    if e.kind == ENDPOINT_NBD:
        return nbd_target_write(e.nbd, buf, offset, length)
    return file_write(e.fd, buf, offset, length)


cdef int endpoint_unmap_cluster(endpoint_t *e, uint32_t c, uint32_t cluster_size) noexcept nogil:
    cdef uint64_t offset = <uint64_t> c * cluster_size
    cdef uint32_t own_size, parts, i
    cdef int rc
    if e.kind == ENDPOINT_BLOB:
        own_size = e.blob.store.cluster_size
        if cluster_size % own_size != 0:
            return blob_unmap(e.blob, offset, cluster_size)
        parts = cluster_size // own_size
        for i in range(parts):
            rc = blob_unmap_cluster(e.blob, c * parts + i)
            if rc < 0:
                return rc
        return 0
    if e.kind == ENDPOINT_NBD:
        return nbd_target_zero(e.nbd, offset, cluster_size)
    return file_zero(e.fd, offset, cluster_size)


cdef void blob_start_writeback(blob_t *blob, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t cluster_size = blob.store.cluster_size
    cdef uint64_t within, piece
    cdef uint32_t own, shard
    while length:
        within = offset % cluster_size
        piece = min(length, cluster_size - within)
        shard = gate_enter(&blob.store.gate)
        own = map_own(blob, <uint32_t> (offset // cluster_size)) if offset < blob_size(blob) else 0
        gate_exit(&blob.store.gate, shard)
        # Outside of the gate: a full queue of the device would hold up whoever closes it.
        if own:
            device_start_writeback(blob.store.dev, own * cluster_size + within, piece)
        offset += piece
        length -= piece


cdef void endpoint_start_writeback(endpoint_t *e, uint64_t offset, uint64_t length) noexcept nogil:
    if e.kind == ENDPOINT_FILE:
        sync_file_range(e.fd, offset, length, SYNC_FILE_RANGE_WRITE)
    elif e.kind == ENDPOINT_BLOB:
        blob_start_writeback(e.blob, offset, length)


cdef int endpoint_flush(endpoint_t *e) noexcept nogil:
    if e.kind == ENDPOINT_BLOB:
        return blob_flush(e.blob)
    if e.kind == ENDPOINT_NBD:
        return nbd_target_flush(e.nbd)
    while fdatasync(e.fd) != 0:
        if errno != EINTR:
            return -errno
    return 0


cdef int endpoint_has(endpoint_t *e, uint32_t c) noexcept nogil:
    if e.kind != ENDPOINT_BLOB or not e.own_layer:
        return 0
    if c >= e.blob.num_clusters or map_own(e.blob, c) == 0:
        return -ENODATA
    return 0


cdef bint endpoint_is_hole(endpoint_t *e, uint32_t c, uint32_t cluster_size) noexcept nogil:
    cdef uint64_t offset
    cdef off_t data
    if e.kind == ENDPOINT_BLOB:
        # Only the own layer of a blob that nobody changes: its clusters stay where they are.
        if not e.own_layer:
            return False
        offset = <uint64_t> map_own(e.blob, c) * cluster_size
        return device_is_hole(e.blob.store.dev, offset, cluster_size)
    if e.kind == ENDPOINT_FILE:
        offset = <uint64_t> c * cluster_size
        data = lseek(e.fd, offset, SEEK_DATA)
        if data < 0:
            return errno == ENXIO
        return <uint64_t> data >= offset + cluster_size
    return False


cdef class Endpoint:
    def __cinit__(self):
        memset(&self.raw, 0, sizeof(endpoint_t))
        self.raw.fd = -1

    def __dealloc__(self):
        self.close()

    def close(self):
        if self.raw.fd >= 0:
            close(self.raw.fd)
        self.raw.fd = -1
        self.raw.kind = ENDPOINT_CLOSED
        self._owner = None

    @staticmethod
    def of_blob(Blob blob not None, str name not None, *, own_layer=False):
        cdef Endpoint e = Endpoint.__new__(Endpoint)
        e.raw.kind = ENDPOINT_BLOB
        e.raw.blob = blob.raw
        e.raw.own_layer = own_layer
        e._owner = blob
        e.name = name
        return e

    @staticmethod
    def of_file(int fd, size, str name not None):
        cdef Endpoint e = Endpoint.__new__(Endpoint)
        e.raw.kind = ENDPOINT_FILE
        e.raw.file_size = size
        e.raw.fd = os.dup(fd)
        e.name = name
        return e

    @staticmethod
    def of_nbd(NbdTarget target not None):
        cdef Endpoint e = Endpoint.__new__(Endpoint)
        target._open()
        e.raw.kind = ENDPOINT_NBD
        e.raw.nbd = &target.raw
        e._owner = target
        e.name = target.uri
        return e

    cdef watch(self, Control control):
        if self.raw.kind == ENDPOINT_NBD:
            (<NbdTarget> self._owner).watch(control)

    def _usable(self):
        if self.raw.kind == ENDPOINT_CLOSED:
            raise ValueError(f"endpoint {self.name} is closed")

    def _raise(self, int rc, str what):
        raise OSError(-rc, f"{what} {self.name}: {os.strerror(-rc)}")

    @property
    def size(self):
        self._usable()
        return endpoint_size(&self.raw)

    def pread(self, length, offset):
        cdef uint64_t at = offset, count = length
        cdef unsigned char[::1] view
        cdef int rc
        self._usable()
        data = bytearray(length)
        if length:
            view = data
            with nogil:
                rc = endpoint_read(&self.raw, &view[0], at, count)
            if rc < 0:
                self._raise(rc, "reading")
        return bytes(data)

    def pwrite(self, const unsigned char[::1] data not None, offset):
        cdef uint64_t at = offset
        cdef int rc
        self._usable()
        if data.shape[0] == 0:
            return
        if at + <uint64_t> data.shape[0] > endpoint_size(&self.raw):
            self._raise(-ERANGE, "writing past the end of")
        with nogil:
            rc = endpoint_write(&self.raw, &data[0], at, data.shape[0])
        if rc < 0:
            self._raise(rc, "writing")

    def flush(self):
        cdef int rc
        self._usable()
        with nogil:
            rc = endpoint_flush(&self.raw)
        if rc < 0:
            self._raise(rc, "flushing")
