"""Counters and latencies of reads, writes and unmaps."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "io_stats.h" nogil:
    enum:
        IO_STAT_SHARDS

    ctypedef struct io_stat_t:
        uint64_t ops
        uint64_t bytes
        uint64_t ticks
        uint64_t slowest
        uint64_t quickest
        uint64_t failed
        uint64_t nomem
        uint64_t ops_before

    ctypedef struct io_stats_t:
        io_stat_t[4] read
        io_stat_t[4] write
        io_stat_t[4] unmap

    uint64_t io_ticks() noexcept
    void io_stat_end(
        io_stat_t *shards, uint32_t shard, int rc, uint64_t bytes, uint64_t began
    ) noexcept


# Completed requests of a kind since the beginning.
cdef uint64_t io_stat_ops(const io_stat_t *shards) noexcept nogil
# {"read": {"ops", "bytes", "ticks", "slowest", "quickest", "failed", "nomem"}, "write", "unmap"}
cdef dict io_stats_dict(io_stats_t *stats)
# Begins anew: "all", the slowest and quickest ("maxmin"), or the failures ("error").
cdef void io_stats_reset(io_stats_t *stats, str what) except *
