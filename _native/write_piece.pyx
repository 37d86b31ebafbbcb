"""How long the pieces are in which a store is written to what it lies on.

The page cache keeps what one write brings in one folio. With buffer heads (ext2 to ext4, block
devices) each later small write into a folio walks all blocks of it: after writes of 64 KiB, random
ones of 4 KiB are a third slower than after 16 KiB, and after 1 MiB a third as fast. Elsewhere
(xfs, tmpfs) folios cost nothing of that kind, and long writes are faster by up to a half.
"""

from libc.stdint cimport uint64_t


cdef extern from "<sys/vfs.h>" nogil:
    struct statfs:
        long f_type
    int fstatfs(int fd, statfs *found)

cdef extern from "<linux/magic.h>" nogil:
    enum:
        EXT4_SUPER_MAGIC  # of ext2 and ext3, too

cdef enum:
    WITH_BUFFER_HEADS = 1 << 14
    WITHOUT = 1 << 20


cdef bint is_on_ext4(int fd) noexcept nogil:
    cdef statfs found
    return fstatfs(fd, &found) == 0 and found.f_type == EXT4_SUPER_MAGIC


cdef uint64_t write_piece(int fd, bint is_block) noexcept nogil:
    return WITH_BUFFER_HEADS if is_block or is_on_ext4(fd) else WITHOUT
