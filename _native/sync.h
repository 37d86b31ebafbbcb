/*
 * Atomics, striped locks and the store gate, for the Cython data plane.
 *
 * The gate is a reader-writer lock whose readers (every data request) touch only a
 * counter on a cache line of their own shard, and whose rare writer (snapshot, resize,
 * delete, chain changes) closes it, waits for the requests in flight and holds new ones
 * back. A thread must leave the gate before it enters any gate again: nesting would
 * deadlock against a closer. The closer itself passes its own closed gate.
 */
#ifndef LVOLFS_SYNC_H
#define LVOLFS_SYNC_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static inline uint32_t load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint64_t load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint64_t add64(uint64_t *p, uint64_t v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
static inline uint32_t add32(uint32_t *p, uint32_t v) {
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
static inline uint32_t sub32(uint32_t *p, uint32_t v) {
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);
}
static inline uint32_t swap32(uint32_t *p, uint32_t v) {
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
static inline int cas32(uint32_t *p, uint32_t expected, uint32_t v) {
    return __atomic_compare_exchange_n(p, &expected, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline uint8_t swap8(uint8_t *p, uint8_t v) {
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
static inline uint8_t load8(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void store8(uint8_t *p, uint8_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }

static inline void *load_pointer(void *const *where) {
    return __atomic_load_n(where, __ATOMIC_ACQUIRE);
}

static inline void store_pointer(void **where, void *value) {
    __atomic_store_n(where, value, __ATOMIC_RELEASE);
}

static inline int cas_pointer(void **where, void *expected, void *value) {
    return __atomic_compare_exchange_n(where, &expected, value, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

#define GATE_SHARDS 16
#define GATE_OWNER 0xFFFFFFFFu /* the shard of a thread that passes its own closed gate */

typedef struct {
    uint32_t inflight;
    char pad[60];
} gate_shard_t;

typedef struct {
    gate_shard_t shard[GATE_SHARDS];
    uint32_t closed;
    pthread_t owner; /* of the closed gate; meaningless while it is open */
    pthread_mutex_t mutex;
    pthread_cond_t reopened;
    pthread_cond_t drained;
} gate_t;

static inline uint32_t gate_own_shard(void) {
    static uint32_t next_shard;
    static __thread uint32_t shard_plus_one;
    if (shard_plus_one == 0) {
        shard_plus_one = 1 + __atomic_fetch_add(&next_shard, 1, __ATOMIC_RELAXED) % GATE_SHARDS;
    }
    return shard_plus_one - 1;
}

static inline void gate_init(gate_t *g) {
    for (int i = 0; i < GATE_SHARDS; i++) {
        g->shard[i].inflight = 0;
    }
    g->closed = 0;
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->reopened, NULL);
    pthread_cond_init(&g->drained, NULL);
}

static inline void gate_destroy(gate_t *g) {
    pthread_cond_destroy(&g->drained);
    pthread_cond_destroy(&g->reopened);
    pthread_mutex_destroy(&g->mutex);
}

/* `shard` is kept by the caller for gate_exit: static inline functions in several
 * objects each have their own counter, so it must not be looked up again elsewhere. */
static inline uint32_t gate_enter(gate_t *g) {
    uint32_t shard = gate_own_shard();
    for (;;) {
        __atomic_fetch_add(&g->shard[shard].inflight, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&g->closed, __ATOMIC_SEQ_CST)) {
            return shard;
        }
        pthread_mutex_lock(&g->mutex);
        __atomic_fetch_sub(&g->shard[shard].inflight, 1, __ATOMIC_SEQ_CST);
        pthread_cond_signal(&g->drained);
        if (g->closed && pthread_equal(g->owner, pthread_self())) {
            pthread_mutex_unlock(&g->mutex);
            return GATE_OWNER;
        }
        while (g->closed) {
            pthread_cond_wait(&g->reopened, &g->mutex);
        }
        pthread_mutex_unlock(&g->mutex);
    }
}

static inline void gate_exit(gate_t *g, uint32_t shard) {
    if (shard == GATE_OWNER) {
        return;
    }
    __atomic_fetch_sub(&g->shard[shard].inflight, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&g->closed, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&g->mutex);
        pthread_cond_signal(&g->drained);
        pthread_mutex_unlock(&g->mutex);
    }
}

/* Returns with no request inside and new ones waiting. One closer at a time. */
static inline void gate_close(gate_t *g) {
    pthread_mutex_lock(&g->mutex);
    while (g->closed) {
        pthread_cond_wait(&g->reopened, &g->mutex);
    }
    g->owner = pthread_self();
    __atomic_store_n(&g->closed, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        uint32_t inside = 0;
        for (int i = 0; i < GATE_SHARDS; i++) {
            inside += __atomic_load_n(&g->shard[i].inflight, __ATOMIC_SEQ_CST);
        }
        if (inside == 0) {
            break;
        }
        pthread_cond_wait(&g->drained, &g->mutex);
    }
    pthread_mutex_unlock(&g->mutex);
}

static inline void gate_open(gate_t *g) {
    pthread_mutex_lock(&g->mutex);
    __atomic_store_n(&g->closed, 0, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&g->reopened);
    pthread_mutex_unlock(&g->mutex);
}

/* Whether this thread has closed the gate. */
static inline int gate_is_mine(gate_t *g) {
    pthread_mutex_lock(&g->mutex);
    int mine = g->closed && pthread_equal(g->owner, pthread_self());
    pthread_mutex_unlock(&g->mutex);
    return mine;
}

static inline double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* For cond_wait_for: somebody who sets the system's time makes nobody wait longer. */
static inline void cond_init_timed(pthread_cond_t *cond) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* Waits on `cond` at most `seconds`; returns 0 or ETIMEDOUT. */
static inline int cond_wait_for(pthread_cond_t *cond, pthread_mutex_t *mutex, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    time_t whole = (time_t)seconds;
    long nanos = until.tv_nsec + (long)((seconds - (double)whole) * 1e9);
    until.tv_sec += whole + nanos / 1000000000L;
    until.tv_nsec = nanos % 1000000000L;
    return pthread_cond_timedwait(cond, mutex, &until);
}

#endif
