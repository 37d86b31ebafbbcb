"""Space of the host for clusters that small writes fill."""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.device cimport device_room, device_t, device_try_reserve
from lvolfs._native.sync cimport cas32, store32

cdef enum:
    # Bytes that the host must have left: a reservation that fails in the middle keeps what it
    # got, and other clusters' writes would lack that.
    LEAST_ROOM = 1 << 26


cdef void fresh_add(fresh_t *fresh, device_t *dev, uint32_t cluster) noexcept nogil:
    if dev.slow_holes:
        store32(&fresh.clusters[cluster % FRESH_CLUSTERS], cluster)


cdef void fresh_reserve(
    fresh_t *fresh, device_t *dev, uint32_t cluster, uint64_t cluster_size
) noexcept nogil:
    if not cas32(&fresh.clusters[cluster % FRESH_CLUSTERS], cluster, 0):
        return
    if device_room(dev) >= LEAST_ROOM + cluster_size:
        # Should a quota refuse it, then the writes themselves may still go through.
        device_try_reserve(dev, cluster * cluster_size, cluster_size)
