/*
 * What has been done to an lvol, and how long it took: counted by every thread that does
 * I/O, read by whoever asks. Times are nanoseconds. Threads count in several copies, each on
 * cache lines of its own, so that they do not wait for one another.
 */
#ifndef LVOLFS_IO_STATS_H
#define LVOLFS_IO_STATS_H

#include <errno.h>
#include <stdint.h>
#include <time.h>

#define IO_STAT_SHARDS 4

typedef struct {
    uint64_t ops;    /* completed requests, never reset: others look for changes of it */
    uint64_t bytes;
    uint64_t ticks;  /* what they took together */
    uint64_t slowest;
    uint64_t quickest; /* 0 = none yet */
    uint64_t failed;
    uint64_t nomem;
    uint64_t ops_before; /* of ops, how many were completed before the last reset */
} io_stat_t;

typedef struct {
    io_stat_t read[IO_STAT_SHARDS];
    io_stat_t write[IO_STAT_SHARDS];
    io_stat_t unmap[IO_STAT_SHARDS];
} io_stats_t;

static inline uint64_t io_ticks(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void io_stat_extreme(uint64_t *kept, uint64_t value, int larger)
{
    uint64_t seen = __atomic_load_n(kept, __ATOMIC_RELAXED);
    while (larger ? value > seen : seen == 0 || value < seen) {
        if (__atomic_compare_exchange_n(kept, &seen, value, 1, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
}

/* A request of `bytes` that began at `began` has ended with `rc`, 0 or -errno. `shard` is
 * the one of the gate that it went through; what else it is does not matter. */
static inline void io_stat_end(io_stat_t *shards, uint32_t shard, int rc, uint64_t bytes,
                               uint64_t began)
{
    io_stat_t *stat = &shards[shard % IO_STAT_SHARDS];
    uint64_t took;
    if (rc != 0) {
        __atomic_fetch_add(rc == -ENOMEM ? &stat->nomem : &stat->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    took = io_ticks() - began;
    took = took ? took : 1;
    __atomic_fetch_add(&stat->ops, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&stat->bytes, bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&stat->ticks, took, __ATOMIC_RELAXED);
    io_stat_extreme(&stat->slowest, took, 1);
    io_stat_extreme(&stat->quickest, took, 0);
}

#endif
