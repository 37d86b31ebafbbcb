/* One name for XXH3-64 whether or not the machine can choose the code path at run time. */
#ifndef LVOLFS_HASHES_H
#define LVOLFS_HASHES_H

#include <stdint.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#endif

static inline uint64_t xxh3_of(const void *data, size_t length) { return XXH3_64bits(data, length); }

static inline int xxh3_add(XXH3_state_t *state, const void *data, size_t length)
{
    return XXH3_64bits_update(state, data, length) == XXH_OK ? 0 : -1;
}

#endif
