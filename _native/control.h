/*
 * What a background job needs beside its data: sleeping, and a look at whether anybody
 * else is using the store right now.
 */
#ifndef LVOLFS_CONTROL_H
#define LVOLFS_CONTROL_H

#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sync.h"

static inline void sleep_seconds(double seconds)
{
    struct timespec span;
    span.tv_sec = (time_t)seconds;
    span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
    nanosleep(&span, NULL);
}

/* Requests inside the gate at this moment; a sample, no promise. */
static inline uint32_t gate_inside(const gate_t *gate)
{
    uint32_t inside = 0;
    for (int i = 0; i < GATE_SHARDS; i++) {
        inside += __atomic_load_n(&gate->shard[i].inflight, __ATOMIC_RELAXED);
    }
    return inside;
}

/* Only the calling thread: on Linux priorities belong to threads. Raising the nice
 * value and lowering the I/O priority need no privilege; failing changes nothing. */
static inline void lower_thread_priority(void)
{
    pid_t self = (pid_t)syscall(SYS_gettid);
    int best_effort_lowest = (2 << 13) | 7;
    (void)setpriority(PRIO_PROCESS, (id_t)self, 10);
    (void)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, self, best_effort_lowest);
}

#endif
