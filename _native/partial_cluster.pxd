"""Clusters whose copy-on-write is not finished: copying is put off until somebody needs it.

The first write to a cluster over a parent's data puts its bytes into a new device cluster, and
the blocks that it does not cover go on showing the parent. Such a cluster is partial: the blob
has it, but no map names it, so neither a commit nor anybody who reads maps knows of it. It is
completed - what is missing is copied, then it is named in the map - by any flush of the store,
before any change of a chain, and by the flusher; at once when writes have covered all of it. Only
those of a volume that is being deleted are dropped instead.

A partial cluster is in its blob's list, which the cluster's stripe lock guards, as it does the
change of the map. `blob.partial_count` is looked at before the map: whoever sees 0 there finds
every cluster that is complete by then in the map.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t, partial_t, store_t


# With the cluster's stripe lock held: the partial cluster c, or NULL.
cdef partial_t *partial_find(blob_t *blob, uint32_t c) noexcept nogil
# The same lock: whether a first write to cluster c shall be put into a partial one.
cdef bint partial_is_worth_it(blob_t *blob, uint32_t c, uint64_t length) noexcept nogil
# The same lock: makes device cluster `cluster`, which is the caller's, a partial cluster c with
# a first write in it. On an error nothing has changed: -ENOMEM, -ENOSPC when the host has no
# room for all of the cluster, -EOPNOTSUPP when it cannot tell, or the write's.
cdef int partial_begin(
    blob_t *blob, uint32_t c, uint32_t cluster, uint64_t start, const void *data, uint64_t length
) noexcept nogil
# The same lock: writes (`data` NULL: zeros). Afterwards it may be complete, and gone.
cdef int partial_write(
    blob_t *blob, partial_t *partial, uint64_t start, const void *data, uint64_t length
) noexcept nogil
# The same lock: what the partial cluster shows.
cdef int partial_read(
    blob_t *blob, partial_t *partial, uint64_t start, void *buf, uint64_t length
) noexcept nogil
# The same lock: copies what is missing and names the cluster in the map. Unchanged on an error.
cdef int partial_complete(blob_t *blob, partial_t *partial) noexcept nogil

# The next three pass the gate. The first error is returned, and the cluster stays partial; unless
# it was for want of space or memory, each later flush of the blob fails, too.
# Completes cluster c, if it is partial.
cdef int blob_complete_cluster(blob_t *blob, uint32_t c) noexcept nogil
# Completes all that are partial when it is called.
cdef int blob_complete(blob_t *blob) noexcept nogil
# The same for all blobs but `spared` (or NULL), with `again` also those that have failed;
# commit_lock is not held.
cdef int store_complete(store_t *store, bint again, blob_t *spared) noexcept nogil

# No new partial cluster comes to be until they are allowed again; calls nest.
cdef void partials_hold(store_t *store) noexcept nogil
cdef void partials_allow(store_t *store) noexcept nogil
# With the gate closed and commit_lock held, this and the next. Afterwards there are none, other
# than those of `spared` (or NULL), or no memory or space for that (-ENOMEM, -ENOSPC). Anything
# else that keeps a cluster from being completed loses what was written to it, as a write that
# the device refused: every later flush of its blob says so.
cdef int partials_end(store_t *store, blob_t *spared) noexcept nogil
# Of a blob that is no more: nothing is copied, the device's clusters are free.
cdef void partials_drop(blob_t *blob) noexcept nogil
