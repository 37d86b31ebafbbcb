"""Where a store's bytes are: a regular file or a block device."""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.device_faults cimport device_faults_t
from lvolfs._native.write_log cimport write_log_t


# Reads in the place of a file: 0 or -errno, after the whole range is done.
ctypedef int (*device_reader_t)(
    void *context, void *buf, uint64_t length, uint64_t offset
) noexcept nogil


ctypedef struct device_t:
    int fd
    device_reader_t reader  # NULL unless what is read is no file; then nothing is written
    void *reader_context
    bint is_block
    bint read_only
    uint32_t block_size    # logical block of the device; 512 for a regular file
    uint64_t size          # bytes
    uint64_t write_piece   # bytes of one write(2); longer requests are cut
    bint slow_holes        # writes into holes take longer than into reserved space
    uint64_t needed        # of them, by the store that is on it; 0: all
    uint64_t reads         # counters, relaxed atomics; no times, which would cost more
    uint64_t bytes_read
    uint64_t writes
    uint64_t bytes_written
    uint64_t discards
    uint64_t bytes_discarded
    uint64_t flushes
    uint64_t errors
    uint64_t no_space      # errors that were ENOSPC: of the host's file system, not of the store
    uint32_t cannot_reserve  # 1: the host file system has no fallocate
    write_log_t *log       # NULL unless the device is recorded
    device_faults_t *faults  # NULL unless a test planted some


# All return 0 or -errno; none returns before the whole range is done. A short read
# (the file shrank under us) is -EIO, a quota that is used up -ENOSPC.
cdef int device_pread(device_t *dev, void *buf, uint64_t length, uint64_t offset) noexcept nogil
cdef int device_pwrite(device_t *dev, const void *buf, uint64_t length, uint64_t offset) noexcept nogil
# The same for a range that held nothing so far. Of a long one the host reserves the space
# before the first byte is copied: one step instead of one a block.
cdef int device_pwrite_new(device_t *dev, const void *buf, uint64_t length, uint64_t offset) noexcept nogil
# A whole metadata page. An error may leave half of it there, which would cost what the page is
# about; so it is put there once more, and the error is returned all the same.
cdef int device_pwrite_page(device_t *dev, const void *page, uint64_t offset) noexcept nogil
# Space of the host for the range, which reads as zeros where nothing was. -ENOSPC; 0 also where
# there is no such thing.
cdef int device_reserve(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil
# The same as a mere advance: what comes of it is not counted among the errors.
cdef int device_try_reserve(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil
# Bytes that the host's file system has left for this process; 0 where that cannot be told.
cdef uint64_t device_room(device_t *dev) noexcept nogil
# Whether it is sure, after device_reserve, that there will be room: a block device has its blocks.
cdef bint device_can_reserve(device_t *dev) noexcept nogil
cdef int device_flush(device_t *dev) noexcept nogil
# Begins to write the range to the medium, so that the next flush finds it done. May wait for
# the device's queue; nothing may rely on it.
cdef void device_start_writeback(
    device_t *dev, uint64_t offset, uint64_t length
) noexcept nogil
# Afterwards the range reads as zeros. Frees the space where the host can.
cdef int device_zero(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil
# Tells the host that the range is not needed; nothing may rely on it.
cdef void device_discard(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil
# 1 when the range is known to be a hole of the backing file, 0 when it may hold data.
cdef bint device_is_hole(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil

# The first byte at or after `offset` that may hold data; the device's size when there is none.
cdef uint64_t device_next_data(device_t *dev, uint64_t offset) noexcept nogil


cdef class Device:
    cdef device_t dev
    cdef object owner  # what the reader reads from
    cdef readonly str path
    cdef _raise_for(self, int rc, str what, uint64_t offset)
