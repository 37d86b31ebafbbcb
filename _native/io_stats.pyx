"""Counters and latencies as Python sees them: the sums of all shards. See io_stats.h."""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.sync cimport load64, store64


cdef uint64_t io_stat_ops(const io_stat_t *shards) noexcept nogil:
    cdef uint64_t ops = 0
    cdef uint32_t i
    for i in range(IO_STAT_SHARDS):
        ops += load64(&shards[i].ops)
    return ops


cdef dict _one(io_stat_t *shards):
    cdef uint64_t ops = 0, count = 0, ticks = 0, slowest = 0, quickest = 0, failed = 0, nomem = 0
    cdef uint64_t value
    cdef uint32_t i
    for i in range(IO_STAT_SHARDS):
        ops += load64(&shards[i].ops) - load64(&shards[i].ops_before)
        count += load64(&shards[i].bytes)
        ticks += load64(&shards[i].ticks)
        slowest = max(slowest, load64(&shards[i].slowest))
        value = load64(&shards[i].quickest)
        if value and (value < quickest or not quickest):
            quickest = value
        failed += load64(&shards[i].failed)
        nomem += load64(&shards[i].nomem)
    return {
        "ops": ops,
        "bytes": count,
        "ticks": ticks,
        "slowest": slowest,
        "quickest": quickest,
        "failed": failed,
        "nomem": nomem,
    }


cdef dict io_stats_dict(io_stats_t *stats):
    return {
        "read": _one(stats.read),
        "write": _one(stats.write),
        "unmap": _one(stats.unmap),
    }


cdef void _reset(io_stat_t *shards, bint counts, bint extremes, bint errors):
    cdef uint32_t i
    for i in range(IO_STAT_SHARDS):
        if counts:
            store64(&shards[i].ops_before, load64(&shards[i].ops))
            store64(&shards[i].bytes, 0)
            store64(&shards[i].ticks, 0)
        if extremes:
            store64(&shards[i].slowest, 0)
            store64(&shards[i].quickest, 0)
        if errors:
            store64(&shards[i].failed, 0)
            store64(&shards[i].nomem, 0)


cdef void io_stats_reset(io_stats_t *stats, str what) except *:
    cdef bint counts, extremes, errors
    if what not in ("all", "maxmin", "error"):
        raise ValueError(f"{what!r}: all, maxmin or error")
    counts = what == "all"
    extremes = what in ("all", "maxmin")
    errors = what in ("all", "error")
    _reset(stats.read, counts, extremes, errors)
    _reset(stats.write, counts, extremes, errors)
    _reset(stats.unmap, counts, extremes, errors)
