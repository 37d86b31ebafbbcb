"""A thread that commits now and then, so that little is lost when nobody asks for a flush."""

from lvolfs._native.cluster_map cimport store_t


# Changed maps are committed every `interval` seconds; 0 or -errno. No second thread is made.
cdef int flusher_start(store_t *store, double interval) noexcept nogil
cdef void flusher_stop(store_t *store) noexcept nogil
