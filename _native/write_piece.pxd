"""How long the pieces are in which a store is written to what it lies on."""

from libc.stdint cimport uint64_t

# Whether the open file lies on ext2, ext3 or ext4.
cdef bint is_on_ext4(int fd) noexcept nogil
# Bytes of one write(2) to the open file or block device.
cdef uint64_t write_piece(int fd, bint is_block) noexcept nogil
