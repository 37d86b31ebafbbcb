from libc.stdint cimport uint32_t

from lvolfs._native.blob cimport Blob
from lvolfs._native.cluster_map cimport blob_t, store_t
from lvolfs._native.device cimport Device


cdef class Engine:
    cdef store_t *store
    cdef readonly Device device
    cdef object _blobs         # weak references by blob id

    cdef store_t *_open(self) except NULL
    cdef Blob _wrap(self, blob_t *blob)
    cdef int _complete(self) except? -1
    cdef _raise_for(self, int rc, str what)
