cdef extern from "scratch.h" nogil:
    void *scratch_get(size_t size) noexcept
