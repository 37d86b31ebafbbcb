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

static inline int lane_clone_device(int clone, int mounted) {
    uint32_t source = (uint32_t)mounted;
    return ioctl(clone, FUSE_DEV_IOC_CLONE, &source);
}

#endif
