cdef extern from "lazy_array.h" nogil:
    void *lazy_array_new(size_t size) noexcept
    void lazy_array_free(void *array, size_t size) noexcept
