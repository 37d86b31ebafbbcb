"""The parts of the FUSE wire protocol that the lane reads and writes."""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "fuse_protocol.h" nogil:
    enum:
        FUSE_FORGET
        FUSE_READ
        FUSE_WRITE
        FUSE_OPEN
        FUSE_FSYNC
        FUSE_FLUSH
        FUSE_INIT
        FUSE_READDIR
        FUSE_CREATE
        FUSE_INTERRUPT
        FUSE_DESTROY
        FUSE_IOCTL
        FUSE_BATCH_FORGET
        FUSE_FALLOCATE
        FUSE_READDIRPLUS
        FUSE_LSEEK
        FUSE_COPY_FILE_RANGE
        LANE_FUSE_COPY_FILE_RANGE_64
        FUSE_NOTIFY_REPLY

        FUSE_NOTIFY_INVAL_INODE

        FOPEN_DIRECT_IO
        FOPEN_KEEP_CACHE
        FOPEN_PARALLEL_DIRECT_WRITES

        FUSE_WRITE_CACHE

        FALLOC_FL_KEEP_SIZE
        FALLOC_FL_PUNCH_HOLE
        FALLOC_FL_ZERO_RANGE

    # Macros above the range of an int; 64-bit INIT flags.
    const uint64_t FUSE_ASYNC_DIO
    const uint64_t FUSE_ATOMIC_O_TRUNC
    const uint64_t FUSE_BIG_WRITES
    const uint64_t FUSE_DIRECT_IO_ALLOW_MMAP
    const uint64_t FUSE_FLOCK_LOCKS
    const uint64_t FUSE_HANDLE_KILLPRIV_V2
    const uint64_t FUSE_INIT_EXT
    const uint64_t FUSE_MAX_PAGES
    const uint64_t FUSE_PARALLEL_DIROPS
    const uint64_t FUSE_POSIX_LOCKS
    const uint64_t FUSE_WRITEBACK_CACHE
    const uint64_t LANE_INIT_OVER_IO_URING

    struct fuse_in_header:
        uint32_t len
        uint32_t opcode
        uint64_t unique
        uint64_t nodeid
        uint32_t uid
        uint32_t gid
        uint32_t pid

    struct fuse_out_header:
        uint32_t len
        int32_t error
        uint64_t unique

    struct fuse_init_in:
        uint32_t major
        uint32_t minor
        uint32_t flags
        uint32_t flags2

    struct fuse_init_out:
        uint32_t major
        uint32_t minor
        uint32_t flags
        uint16_t max_background
        uint16_t congestion_threshold
        uint32_t max_write
        uint16_t max_pages
        uint32_t flags2

    struct fuse_entry_out:
        uint64_t nodeid

    struct fuse_open_out:
        uint64_t fh
        uint32_t open_flags

    struct fuse_read_in:
        uint64_t fh
        uint64_t offset
        uint32_t size
        uint32_t flags

    struct fuse_write_in:
        uint64_t fh
        uint64_t offset
        uint32_t size
        uint32_t write_flags
        uint32_t flags

    struct fuse_write_out:
        uint32_t size
        uint32_t padding

    struct fuse_fsync_in:
        uint64_t fh

    struct fuse_flush_in:
        uint64_t fh

    struct fuse_ioctl_in:
        uint64_t fh
        uint32_t flags
        uint32_t cmd
        uint32_t in_size
        uint32_t out_size

    struct fuse_ioctl_out:
        int32_t result
        uint32_t flags
        uint32_t in_iovs
        uint32_t out_iovs

    struct fuse_fallocate_in:
        uint64_t fh
        uint64_t offset
        uint64_t length
        uint32_t mode

    struct fuse_lseek_in:
        uint64_t fh
        uint64_t offset
        uint32_t whence

    struct fuse_lseek_out:
        uint64_t offset

    struct fuse_copy_file_range_in:
        uint64_t fh_in
        uint64_t off_in
        uint64_t nodeid_out
        uint64_t fh_out
        uint64_t off_out
        uint64_t len
        uint64_t flags

    struct lane_copy_file_range_out:
        uint64_t bytes_copied

    struct fuse_notify_inval_inode_out:
        uint64_t ino
        int64_t off
        int64_t len

    struct lane_ring_head:
        char header[128]
        char argument[128]
        uint64_t commit_id
        uint32_t payload_size

    int lane_clone_device(int clone, int mounted) noexcept
