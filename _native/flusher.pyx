"""A thread that commits now and then, so that little is lost when nobody asks for a flush."""

from libc.stdint cimport uint32_t

from lvolfs._native.commit cimport store_flush
from lvolfs._native.partial_cluster cimport store_complete
from lvolfs._native.sync cimport (
    cond_wait_for,
    load32,
    pthread_cond_signal,
    pthread_create,
    pthread_join,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    seconds_now,
)

cdef enum:
    # Data without a change of maps are made durable once in so many intervals.
    DATA_INTERVALS = 30
    # Commits keep the device busy for one part in so many of the time at most, as long as that
    # means to wait for no more than so many intervals.
    FLUSHER_SHARE = 10
    FLUSHER_PATIENCE = 5


cdef void *flusher_run(void *argument) noexcept nogil:
    cdef store_t *store = <store_t *> argument
    cdef double interval = store.flusher_interval
    cdef double wait = interval
    cdef double began
    cdef bint changed
    cdef uint32_t quiet = 0     # waits with data that are only written
    pthread_mutex_lock(&store.flush_lock)
    while not store.flusher_stop:
        cond_wait_for(&store.flusher_wake, &store.flush_lock, wait)
        wait = interval
        quiet = quiet + 1 if load32(&store.written) else 0
        changed = load32(&store.dirty) or load32(&store.partial_clusters)
        if store.flusher_stop or load32(&store.failed):
            continue
        # Data that were overwritten in place are on their way by the host's own writeback, as
        # any program's; only maps are nowhere but in this process.
        if not changed and quiet < <uint32_t> DATA_INTERVALS:
            continue
        quiet = 0
        pthread_mutex_unlock(&store.flush_lock)
        began = seconds_now()
        # An error is kept by the store or leaves it dirty, or a cluster partial: the next flush
        # reports it.
        store_complete(store, False, NULL)
        store_flush(store)
        wait = min(
            max(interval, (seconds_now() - began) * FLUSHER_SHARE), interval * FLUSHER_PATIENCE
        )
        pthread_mutex_lock(&store.flush_lock)
    pthread_mutex_unlock(&store.flush_lock)
    return NULL


cdef int flusher_start(store_t *store, double interval) noexcept nogil:
    cdef int rc
    if store.flusher_runs:
        return 0
    store.flusher_interval = interval
    store.flusher_stop = 0
    rc = pthread_create(&store.flusher, NULL, flusher_run, store)
    store.flusher_runs = rc == 0
    return -rc


cdef void flusher_stop(store_t *store) noexcept nogil:
    if not store.flusher_runs:
        return
    pthread_mutex_lock(&store.flush_lock)
    store.flusher_stop = 1
    pthread_cond_signal(&store.flusher_wake)
    pthread_mutex_unlock(&store.flush_lock)
    pthread_join(store.flusher, NULL)
    store.flusher_runs = False
