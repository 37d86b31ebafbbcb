"""When metadata reach the device, and in which order.

The contract is a disk's with a write cache. A commit captures what changed in the maps,
then: data barrier, extent pages and new chain pages, barrier, root pages, barrier; only
then are freed clusters discarded and handed out again. A map names a cluster only after
its data were written, so the capture names nothing that the data barrier does not cover.
"""

from lvolfs._native.cluster_map cimport blob_t, store_t


# Everything written before the call is durable when it returns 0; concurrent calls share
# one commit.
cdef int store_flush(store_t *store) noexcept nogil
# After ENOSPC: commits, so that freed clusters can be used again; whether there were any.
cdef bint store_reclaim(store_t *store) noexcept nogil
# Waits until every cluster freed by a finished commit has been given back.
cdef void store_settle(store_t *store) noexcept nogil

# The same as store_flush by whoever holds commit_lock. Freed clusters stay pending
# until the next store_flush.
cdef int commit_locked(store_t *store) noexcept nogil
# Writes one blob whole, by whoever holds commit_lock and has closed the gate.
cdef int commit_blob(blob_t *blob) noexcept nogil
# Removes one blob from the device and from the store's list; the same conditions.
cdef int commit_destroy(blob_t *blob) noexcept nogil
# Takes a blob off the store's list, and drops the list's reference; the same conditions.
cdef void commit_forget(blob_t *blob) noexcept nogil
# After the store's list or a chain changed: so many free pages are kept that the longest
# chain can be written anew, a page longer. Without them a write that took the last page for
# its extent could never be committed.
cdef void commit_set_reserve(store_t *store) noexcept nogil
