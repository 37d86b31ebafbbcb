from lvolfs._native.cluster_map cimport blob_t, store_t
from lvolfs._native.device cimport Device


cdef class Engine:
    cdef store_t *store
    cdef readonly Device device
    cdef object _flusher


cdef class Blob:
    """Owns a reference to a blob_t; `raw` stays valid for as long as this object lives."""
    cdef blob_t *raw
    cdef readonly Engine engine
    cdef Device _external      # keeps the external parent's device open
