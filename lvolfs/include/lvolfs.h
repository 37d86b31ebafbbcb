/*
 * lvolfs.h - control of a mounted lvolfs store by ioctl(2)
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Open a file of MNT/volumes or MNT/snapshots (read-only will do), fill in a structure,
 * call ioctl(). Every structure begins with
 *
 *     size    sizeof the structure, as the caller knows it; another value is EINVAL
 *     flags   0, or the flags named beside the structure; others are EINVAL
 *
 * and all reserved members must be 0 (EINVAL). Byte counts and cluster numbers are plain
 * numbers in host byte order; strings end with a NUL. Calls that change anything are for the
 * owner of the mount and root (EPERM).
 *
 * Errors that every call may return: ENOTTY for a file that is neither volume nor snapshot and
 * for unknown requests, EINVAL for malformed arguments, ERANGE for a cluster past the end.
 */
#ifndef LVOLFS_H
#define LVOLFS_H

#include <linux/ioctl.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef unsigned char lvolfs_u8;
typedef unsigned int lvolfs_u32;
typedef unsigned long long lvolfs_u64;

#define LVOLFS_IOC_MAGIC 'L'

#define LVOLFS_NAME_SIZE 256         /* a name and its NUL */
#define LVOLFS_UUID_SIZE 40          /* 36 characters, NUL, padding */
#define LVOLFS_TEXT_SIZE 256         /* an error text and its NUL */
#define LVOLFS_DESTINATION_SIZE 1024 /* a copy's destination and its NUL */
#define LVOLFS_COPY_CLUSTERS 1024    /* most clusters that one copy can list */
#define LVOLFS_RANGE_CLUSTERS 1024   /* most checksums that one call returns */
#define LVOLFS_FRAGMAP_BYTES 8192    /* 65,536 clusters */

/* Types of an lvol. */
#define LVOLFS_VOLUME 1
#define LVOLFS_SNAPSHOT 2

/* Checksum algorithms; 0 asks for the default, XXH3. */
#define LVOLFS_XXH3 1
#define LVOLFS_CRC64 2

/* States of a background operation. */
#define LVOLFS_STATE_NONE 0
#define LVOLFS_STATE_IN_PROGRESS 1
#define LVOLFS_STATE_COMPLETE 2
#define LVOLFS_STATE_ERROR 3
#define LVOLFS_STATE_CANCELLED 4

/* States of a cluster in a checksum range. */
#define LVOLFS_CLUSTER_UNWRITTEN 0    /* not owned by this snapshot: no checksum */
#define LVOLFS_CLUSTER_WRITTEN 1      /* owned, and its checksum is registered */
#define LVOLFS_CLUSTER_UNREGISTERED 2 /* owned, but not registered yet */

/* lvolfs_info.properties */
#define LVOLFS_THIN 1u
#define LVOLFS_READ_ONLY 2u
#define LVOLFS_CLONE 4u          /* has a parent in this store */
#define LVOLFS_EXTERNAL_CLONE 8u /* its parent is outside of the store */
#define LVOLFS_DEGRADED 16u      /* that parent is missing */

/* Any lvol: what it is. */
struct lvolfs_info {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 bytes; /* out, all of them */
    lvolfs_u64 num_clusters;
    lvolfs_u64 num_allocated_clusters; /* owned by this lvol itself */
    lvolfs_u32 cluster_size;           /* bytes */
    lvolfs_u32 type;
    lvolfs_u32 properties;
    lvolfs_u32 num_children;
    char uuid[LVOLFS_UUID_SIZE];
    char name[LVOLFS_NAME_SIZE];
    char parent[LVOLFS_NAME_SIZE]; /* empty without one; an external one's id */
    lvolfs_u64 reserved[8];
};

/* SNAPSHOT, of a volume, and CLONE, of a snapshot. EEXIST, ENOSPC, EBUSY. */
struct lvolfs_create {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    char name[LVOLFS_NAME_SIZE]; /* in: of the new snapshot or volume */
    char uuid[LVOLFS_UUID_SIZE]; /* out */
    lvolfs_u64 reserved[4];
};

/* A snapshot: start to register checksums in the background. EBUSY when one is under way. */
struct lvolfs_checksum_register {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 start; /* first cluster */
    lvolfs_u64 count; /* clusters; 0 = all, start must be 0 then */
    lvolfs_u32 algorithm;
    lvolfs_u32 reserved0;
    lvolfs_u64 id; /* out: of the operation */
    lvolfs_u64 reserved[4];
};

/* A snapshot: how its latest registration is going. ENODATA if there is none. */
struct lvolfs_checksum_status {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u32 state;     /* out, all of them */
    lvolfs_u32 algorithm; /* of what is registered; 0 = nothing yet */
    lvolfs_u64 done;      /* clusters */
    lvolfs_u64 total;
    char error[LVOLFS_TEXT_SIZE];
    lvolfs_u64 reserved[4];
};

/* A snapshot: its checksum over all clusters that it owns. ENODATA if not registered. */
struct lvolfs_checksum_get {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 checksum;  /* out */
    lvolfs_u32 algorithm; /* out */
    lvolfs_u32 reserved0;
    lvolfs_u64 reserved[4];
};

/* A snapshot: checksums of its clusters, page by page. ENODATA if none is registered. */
struct lvolfs_checksum_range {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 start;     /* in: first cluster */
    lvolfs_u64 count;     /* in: clusters wanted; out: how many follow */
    lvolfs_u32 algorithm; /* out */
    lvolfs_u32 reserved0;
    lvolfs_u64 reserved[4];
    lvolfs_u8 state[LVOLFS_RANGE_CLUSTERS];
    lvolfs_u64 checksum[LVOLFS_RANGE_CLUSTERS];
};

/* Any lvol: which clusters it owns itself. Bit i of byte i/8 (lowest bit first) is start+i. */
struct lvolfs_fragmap {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 start;     /* in: first cluster */
    lvolfs_u64 count;     /* in: clusters wanted; out: how many follow */
    lvolfs_u64 allocated; /* out: bits that are set among these */
    lvolfs_u64 reserved[4];
    lvolfs_u8 bits[LVOLFS_FRAGMAP_BYTES];
};

/* lvolfs_copy_start.flags */
#define LVOLFS_COPY_ALL 1u  /* all clusters that the source owns; num_clusters must be 0 */
#define LVOLFS_COPY_DEEP 2u /* and those of its ancestors, too; only with LVOLFS_COPY_ALL */

/*
 * Any lvol: start to copy clusters in the background. A listed cluster that the source does not
 * own is unmapped at the destination. The destination is a name or uuid in this store, the
 * absolute path of a file or block device, or an NBD URI. EBUSY, EROFS, ENOSPC, ENOENT.
 */
struct lvolfs_copy_start {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 id; /* out: of the operation */
    lvolfs_u32 num_clusters;
    lvolfs_u32 reserved0;
    lvolfs_u64 reserved[4];
    char destination[LVOLFS_DESTINATION_SIZE];
    lvolfs_u32 clusters[LVOLFS_COPY_CLUSTERS];
};

/* Any file of the mount: how a copy is going. ENOENT for an unknown id. */
struct lvolfs_copy_status {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 id;    /* in; 0 = this lvol's latest (ENODATA without one) */
    lvolfs_u32 state; /* out, all that follow */
    lvolfs_u32 reserved0;
    lvolfs_u64 total; /* clusters */
    lvolfs_u64 copied;
    lvolfs_u64 unmapped;
    lvolfs_u64 bytes;
    char error[LVOLFS_TEXT_SIZE];
    lvolfs_u64 reserved[4];
};

/* ENOENT for an unknown id; no error for a copy that has ended already. */
struct lvolfs_copy_cancel {
    lvolfs_u32 size;
    lvolfs_u32 flags;
    lvolfs_u64 id;
    lvolfs_u64 reserved[4];
};

#define LVOLFS_IOC_INFO _IOWR(LVOLFS_IOC_MAGIC, 1, struct lvolfs_info)
#define LVOLFS_IOC_SNAPSHOT _IOWR(LVOLFS_IOC_MAGIC, 2, struct lvolfs_create)
#define LVOLFS_IOC_CLONE _IOWR(LVOLFS_IOC_MAGIC, 3, struct lvolfs_create)
#define LVOLFS_IOC_CHECKSUM_REGISTER _IOWR(LVOLFS_IOC_MAGIC, 4, struct lvolfs_checksum_register)
#define LVOLFS_IOC_CHECKSUM_STATUS _IOWR(LVOLFS_IOC_MAGIC, 5, struct lvolfs_checksum_status)
#define LVOLFS_IOC_CHECKSUM_GET _IOWR(LVOLFS_IOC_MAGIC, 6, struct lvolfs_checksum_get)
#define LVOLFS_IOC_CHECKSUM_RANGE _IOWR(LVOLFS_IOC_MAGIC, 7, struct lvolfs_checksum_range)
#define LVOLFS_IOC_FRAGMAP _IOWR(LVOLFS_IOC_MAGIC, 8, struct lvolfs_fragmap)
#define LVOLFS_IOC_COPY_START _IOWR(LVOLFS_IOC_MAGIC, 9, struct lvolfs_copy_start)
#define LVOLFS_IOC_COPY_STATUS _IOWR(LVOLFS_IOC_MAGIC, 10, struct lvolfs_copy_status)
#define LVOLFS_IOC_COPY_CANCEL _IOWR(LVOLFS_IOC_MAGIC, 11, struct lvolfs_copy_cancel)

#ifdef __cplusplus
}
#endif

#endif
