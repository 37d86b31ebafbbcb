/*
 * The FUSE wire protocol: the system's <linux/fuse.h>, and what kernels newer than
 * Debian 12's header (7.38) speak. Numbers and layouts are the kernel's ABI.
 */
#ifndef LVOLFS_FUSE_PROTOCOL_H
#define LVOLFS_FUSE_PROTOCOL_H

#include <linux/fuse.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* 7.31 in every header that this builds with; later ones are defined here if missing. */
#ifndef FUSE_HAS_RESEND
#define FUSE_CREATE_SUPP_GROUP (1ULL << 34)
/* 7.39: shared mappings of a file that was opened with FOPEN_DIRECT_IO (kernel 6.6). */
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif

/* 7.39, enum values there, so they cannot be tested for: own names. */
#define LANE_FUSE_STATX 52
/* 7.45: the reply carries 64 bits of length (kernel 6.18). */
#define LANE_FUSE_COPY_FILE_RANGE_64 53

/* The reply to the request above. */
struct lane_copy_file_range_out {
    uint64_t bytes_copied;
};

/*
 * 7.42, kernel 6.14: FUSE over io_uring. Commands are IORING_OP_URING_CMD on the device's
 * descriptor in a ring with 128-byte SQEs, with lane_ring_command in the SQE's 80 bytes.
 */
#define LANE_INIT_OVER_IO_URING (1ULL << 41)
#define LANE_RING_REGISTER 1         /* SQE: addr = iovec[2] (head, payload), len = 2 */
#define LANE_RING_COMMIT_AND_FETCH 2 /* the reply goes out, the next request comes in */

struct lane_ring_command {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t queue;
    uint8_t padding[6];
};

/* One entry's headers; its payload is apart. */
struct lane_ring_head {
    char header[128];   /* fuse_in_header, then fuse_out_header */
    char argument[128]; /* the operation's fixed argument, if it has one */
    uint64_t flags;
    uint64_t commit_id;
    uint32_t payload_size;
    uint32_t padding;
    uint64_t reserved;
};

_Static_assert(sizeof(struct lane_ring_command) == 24, "as the kernel has it");
_Static_assert(sizeof(struct lane_ring_head) == 288, "as the kernel has it");

static inline int lane_clone_device(int clone, int mounted) {
    uint32_t source = (uint32_t)mounted;
    return ioctl(clone, FUSE_DEV_IOC_CLONE, &source);
}

#endif
