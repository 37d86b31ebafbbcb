from libc.stdint cimport uint8_t, uint32_t

from lvolfs._native.cluster_map cimport blob_t, store_t
from lvolfs._native.device cimport Device


# Replaces malloc'ed bytes by a copy of `data`; NULL for none.
cdef int set_bytes(uint8_t **where, uint32_t *length, data) except -1


cdef class Blob:
    """Owns a reference to a blob_t; `raw` stays valid for as long as this object lives."""
    cdef blob_t *raw
    cdef readonly object engine  # the Engine; keeps the store in memory
    cdef Blob _parent
    cdef Device _external      # keeps the external parent's device open
    cdef object __weakref__

    cdef _raise_for(self, int rc, str what)
    cdef uint32_t _window(self, first, count) except? 0
    cdef store_t *_open(self) except NULL
