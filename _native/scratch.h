/*
 * One growing buffer per thread, for copies that need memory between a read and a write.
 * It is freed when the thread ends.
 */
#ifndef LVOLFS_SCRATCH_H
#define LVOLFS_SCRATCH_H

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

typedef struct {
    size_t size;
    void *memory;
} scratch_t;

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *value) {
    scratch_t *s = value;
    free(s->memory);
    free(s);
}

static void scratch_make_key(void) { pthread_key_create(&scratch_key, scratch_free); }

/* `size` bytes, page aligned, valid until this thread's next call; NULL when out of memory. */
static inline void *scratch_get(size_t size) {
    pthread_once(&scratch_once, scratch_make_key);
    scratch_t *s = pthread_getspecific(scratch_key);
    if (s == NULL) {
        s = calloc(1, sizeof *s);
        if (s == NULL) {
            return NULL;
        }
        pthread_setspecific(scratch_key, s);
    }
    if (s->size < size) {
        void *memory = NULL;
        if (posix_memalign(&memory, 4096, size) != 0) {
            return NULL;
        }
        free(s->memory);
        s->memory = memory;
        s->size = size;
    }
    return s->memory;
}

#endif
