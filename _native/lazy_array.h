/*
 * Arrays of zeros that take memory only where they are written, whatever their length: a map may
 * have room for 2^28 clusters in a store of a few megabytes.
 */
#ifndef LVOLFS_LAZY_ARRAY_H
#define LVOLFS_LAZY_ARRAY_H

#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LAZY_ARRAY_MAPPED (16u << 10) /* from here on pages of its own */

/* `size` bytes of zeros, aligned for any type; NULL when out of memory. */
static inline void *lazy_array_new(size_t size) {
    if (size < LAZY_ARRAY_MAPPED) {
        return calloc(1, size ? size : 1);
    }
    void *array = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (array == MAP_FAILED) {
        return NULL;
    }
    /* A huge page would be taken for a single entry. Where there are none this fails, rightly. */
    (void)madvise(array, size, MADV_NOHUGEPAGE);
    return array;
}

/* `size` as it was made with; NULL is allowed. */
static inline void lazy_array_free(void *array, size_t size) {
    if (array == NULL) {
        return;
    }
    if (size < LAZY_ARRAY_MAPPED) {
        free(array);
    } else {
        munmap(array, size);
    }
}

#endif
