/*
 * One io_uring with 128-byte SQEs for one thread, by its system calls: just what commands on
 * a descriptor and reads of an eventfd need.
 */
#ifndef LVOLFS_IO_RING_H
#define LVOLFS_IO_RING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse_protocol.h"

typedef struct {
    int fd;
    uint32_t entries;
    uint32_t tail; /* of the submission queue; the kernel has seen up to `submitted` */
    uint32_t submitted;
    uint32_t *sq_head, *sq_tail, *sq_mask, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_cqe *cqes;
    char *sqes;
    void *rings;
    size_t rings_size, sqes_size;
} io_ring_t;

static inline void io_ring_close(io_ring_t *ring) {
    if (ring->sqes != NULL) munmap(ring->sqes, ring->sqes_size);
    if (ring->rings != NULL) munmap(ring->rings, ring->rings_size);
    if (ring->fd > 0) close(ring->fd);
    memset(ring, 0, sizeof(*ring));
}

/* Made by any thread, enabled by the one that uses it. 0 or -errno. */
static inline int io_ring_open(io_ring_t *ring, uint32_t entries) {
    struct io_uring_params params;
    memset(&params, 0, sizeof(params));
    memset(ring, 0, sizeof(*ring));
    params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_R_DISABLED;
    ring->fd = (int)syscall(__NR_io_uring_setup, entries, &params);
    if (ring->fd < 0) {
        ring->fd = 0;
        return -errno;
    }
    size_t sq = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    size_t cq = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    ring->entries = params.sq_entries;
    ring->rings_size = sq > cq ? sq : cq;
    ring->sqes_size = (size_t)params.sq_entries * 128;
    /* Every kernel with SQE128 maps both queues at once. */
    void *rings = mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       ring->fd, IORING_OFF_SQ_RING);
    void *sqes = mmap(NULL, ring->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                      ring->fd, IORING_OFF_SQES);
    ring->rings = rings == MAP_FAILED ? NULL : rings;
    ring->sqes = sqes == MAP_FAILED ? NULL : (char *)sqes;
    if (ring->rings == NULL || ring->sqes == NULL) {
        int error = -errno;
        io_ring_close(ring);
        return error;
    }
    char *base = (char *)rings;
    ring->sq_head = (uint32_t *)(base + params.sq_off.head);
    ring->sq_tail = (uint32_t *)(base + params.sq_off.tail);
    ring->sq_mask = (uint32_t *)(base + params.sq_off.ring_mask);
    ring->cq_head = (uint32_t *)(base + params.cq_off.head);
    ring->cq_tail = (uint32_t *)(base + params.cq_off.tail);
    ring->cq_mask = (uint32_t *)(base + params.cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(base + params.cq_off.cqes);
    uint32_t *array = (uint32_t *)(base + params.sq_off.array);
    for (uint32_t i = 0; i < params.sq_entries; i++) {
        array[i] = i;
    }
    return 0;
}

static inline int io_ring_enable(io_ring_t *ring) {
    return syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0
               ? -errno
               : 0;
}

/* Submits what is prepared and waits for `least` completions. 0 or -errno. */
static inline int io_ring_enter(io_ring_t *ring, uint32_t least) {
    uint32_t count = ring->tail - ring->submitted;
    __atomic_store_n(ring->sq_tail, ring->tail, __ATOMIC_RELEASE);
    long done = syscall(__NR_io_uring_enter, ring->fd, count, least, IORING_ENTER_GETEVENTS, NULL,
                        (size_t)0);
    if (done < 0) {
        return -errno;
    }
    ring->submitted += (uint32_t)done;
    return 0;
}

static inline uint32_t io_ring_unsubmitted(const io_ring_t *ring) {
    return ring->tail - ring->submitted;
}

/* NULL when it is full: submit first. */
static inline struct io_uring_sqe *io_ring_next(io_ring_t *ring) {
    if (ring->tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) >= ring->entries) {
        return NULL;
    }
    struct io_uring_sqe *sqe =
        (struct io_uring_sqe *)(ring->sqes + (size_t)(ring->tail & *ring->sq_mask) * 128);
    memset(sqe, 0, 128);
    ring->tail++;
    return sqe;
}

/* 1 and the oldest completion, or 0. */
static inline int io_ring_reap(io_ring_t *ring, uint64_t *user_data, int *result) {
    uint32_t head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE)) {
        return 0;
    }
    struct io_uring_cqe *cqe = &ring->cqes[head & *ring->cq_mask];
    *user_data = cqe->user_data;
    *result = cqe->res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return 1;
}

static inline int io_ring_read(io_ring_t *ring, int fd, void *data, uint32_t size,
                               uint64_t user_data) {
    struct io_uring_sqe *sqe = io_ring_next(ring);
    if (sqe == NULL) return -EBUSY;
    sqe->opcode = IORING_OP_READ;
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)data;
    sqe->len = size;
    sqe->user_data = user_data;
    return 0;
}

static inline int io_ring_fuse(io_ring_t *ring, int fd, uint32_t what, uint16_t queue,
                               uint64_t commit_id, const struct iovec *buffers,
                               uint64_t user_data) {
    struct io_uring_sqe *sqe = io_ring_next(ring);
    struct lane_ring_command *command;
    if (sqe == NULL) return -EBUSY;
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd;
    sqe->cmd_op = what;
    sqe->addr = (uint64_t)(uintptr_t)buffers;
    sqe->len = buffers == NULL ? 0 : 2;
    sqe->user_data = user_data;
    command = (struct lane_ring_command *)sqe->cmd;
    command->commit_id = commit_id;
    command->queue = queue;
    return 0;
}

#endif
