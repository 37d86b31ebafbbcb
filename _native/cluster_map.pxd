"""What is where: the in-memory form of a store and of its blobs, and the look-up.

A blob's own map are its extents, of 512 clusters each: one that owns nothing is NULL, so that
memory goes with what is owned, not with the size. `map_own` is the device cluster that holds
blob cluster c, or 0, and is read without a lock. An extent comes into being under extent_lock,
a 0 becomes a number under the cluster's stripe lock, once the data are in place (until then a
cluster may be partial, see partial_cluster.pxd); a number
changes back or moves to another blob, and an extent goes, only with the gate closed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lvolfs._native.allocator cimport allocator_t
from lvolfs._native.device cimport device_t
from lvolfs._native.fresh_clusters cimport fresh_t
from lvolfs._native.io_stats cimport io_stats_t
from lvolfs._native.sync cimport (
    gate_t,
    load32,
    load_pointer,
    pthread_cond_t,
    pthread_mutex_t,
    pthread_t,
    store32,
)

cdef enum:
    CLUSTERS_PER_EXTENT = 512
    STRIPES = 64
    # What is shown of a cluster, beside a cluster number.
    EFFECTIVE_UNKNOWN = 0
    EFFECTIVE_ZERO = 0xFFFFFFFF
    EFFECTIVE_EXTERNAL = 0xFFFFFFFE


ctypedef struct blob_t


ctypedef struct extent_t:
    uint32_t page               # its metadata page; 0 only in a blob kept as RLE
    uint32_t[512] clusters      # device clusters, 0 = not owned


ctypedef struct partial_t:
    partial_t *next
    uint32_t c                  # the blob's cluster
    uint32_t cluster            # the device's
    uint32_t missing            # how many blocks are not written yet
    int error                   # -errno of the last attempt to complete it
    uint64_t[0] written         # a bit for each block


ctypedef struct store_t:
    device_t *dev
    uint32_t cluster_size       # bytes
    uint32_t page_size          # bytes of a metadata page slot
    uint32_t md_start           # first metadata page, in page slots from 0
    uint32_t md_len             # metadata pages
    uint32_t total_clusters     # of the device, metadata ones too
    uint32_t metadata_clusters  # clusters 0..n-1 hold metadata
    bint read_only
    bint super_marked_dirty     # super.clean = 0 is durable
    uint32_t failed             # errno that stopped all commits, 0 if none
    uint32_t faults             # planted by tests, see faults.pxd
    allocator_t clusters
    allocator_t pages
    uint32_t page_reserve       # free pages that only the rewriting of a chain may claim
    gate_t gate                 # every data request passes it
    pthread_mutex_t commit_lock  # held by whoever writes metadata
    pthread_mutex_t flush_lock  # guards the next six
    pthread_cond_t flush_done
    uint64_t commits_started
    uint64_t commits_done
    bint commit_running
    int last_commit_result
    uint32_t dirty              # maps or freed space to commit since the last capture
    uint32_t written            # data written in place since the last data barrier
    uint32_t partial_clusters   # of all blobs
    uint32_t partial_holds      # who wants no more of them, see partials_hold
    uint32_t effective_maps     # blobs whose `effective` is not NULL
    uint32_t closed             # no request is served any more
    uint32_t discarding         # commits whose freed clusters are not given back yet
    pthread_t flusher
    uint32_t flusher_stop
    bint flusher_runs
    double flusher_interval
    pthread_cond_t flusher_wake
    fresh_t fresh
    blob_t *blobs               # list; changes only under commit_lock


ctypedef struct blob_t:
    store_t *store
    blob_t *next
    uint64_t id
    uint32_t num_clusters       # set with store32, as `owned` is: some look without any lock
    uint32_t num_extents
    uint32_t extent_room        # of the next three; a multiple of 8, num_extents or more
    extent_t **extents          # NULL = owns nothing there
    uint8_t *extent_dirty       # to be written by the next commit
    uint32_t **effective        # what ancestors show, 512 each as far as known; may be NULL
    uint32_t map_dirty          # some extent_dirty[] is set, or table_dirty
    uint32_t table_dirty        # the chain must be rewritten at the next commit
    blob_t *parent
    device_t *external          # parent outside of the store
    bint has_external           # an external parent is named; `external` NULL = missing
    bint thin
    bint read_only
    bint rle                    # kept as EXTENT_RLE: no extent pages
    uint32_t *chain             # metadata pages of the chain, root first
    uint32_t chain_length
    uint8_t *head               # serialized descriptors before the extent table
    uint32_t head_length
    uint8_t *checksums          # type-7 records (12 bytes each), or NULL
    uint32_t checksums_length
    uint32_t owned              # clusters in its own map, and partial ones
    partial_t *partials[STRIPES]  # each list guarded by its stripe lock
    uint32_t partial_count
    uint32_t failed             # errno of a data write that was lost, 0 if none
    uint32_t refs               # Python objects, open lane handles, and the store's list
    pthread_mutex_t stripe[STRIPES]
    pthread_mutex_t extent_lock  # guards NULL -> extent
    io_stats_t stats


# Where blob cluster `c` is to be read: a device cluster number, EFFECTIVE_ZERO or
# EFFECTIVE_EXTERNAL (then *external is the device, NULL if missing).
cdef uint32_t map_resolve(blob_t *blob, uint32_t c, device_t **external) noexcept nogil
# The same without the blob's own layer: what would show if it did not own the cluster.
cdef uint32_t map_resolve_below(blob_t *blob, uint32_t c, device_t **external) noexcept nogil
# Byte offset of the next data (or hole) at or after `offset` through the whole chain;
# -ENXIO as lseek(2) does. Passes the gate.
cdef long map_seek(blob_t *blob, uint64_t offset, bint data) noexcept nogil
# Bit i (LSB first) = the blob owns cluster first+i itself. Returns how many bits are set.
# Passes the gate; clusters past the end count as not owned.
cdef uint32_t map_fragmap(blob_t *blob, uint32_t first, uint32_t count, uint8_t *bits) noexcept nogil
# Drops the flattened maps of all blobs: after any change of a chain, with the gate closed.
cdef void map_forget_effective(store_t *store) noexcept nogil
# Marks the extent of cluster c to be written by the next commit: after the map has changed.
cdef void map_mark_dirty(blob_t *blob, uint32_t c) noexcept nogil

# An extent that owns nothing, not in any blob yet; NULL when out of memory.
cdef extent_t *extent_new(uint32_t page) noexcept nogil
# One for this blob, with a metadata page of its own unless the blob is kept as RLE.
cdef int map_claim_extent(blob_t *blob, extent_t **added) noexcept nogil
# Takes over a new extent: extent_lock held, or the gate closed.
cdef void map_add_extent(blob_t *blob, uint32_t extent, extent_t *added) noexcept nogil
# Moves an extent to another metadata page: with the gate closed.
cdef void map_move_extent(blob_t *blob, uint32_t extent, uint32_t page) noexcept nogil
# Forgets an extent and what it owns: with the gate closed.
cdef void map_drop_extent(blob_t *blob, uint32_t extent) noexcept nogil
# Room for so many extents, with those that are there: 0 or -ENOMEM. With the gate closed.
cdef int map_set_room(blob_t *blob, uint32_t num_extents) noexcept nogil
# Whether neither the blob nor an ancestor has anything at all in this extent.
cdef bint map_shows_nothing(blob_t *blob, uint32_t extent) noexcept nogil

cdef blob_t *blob_new(store_t *store, uint64_t blob_id, uint32_t num_clusters) noexcept nogil
cdef void blob_get(blob_t *blob) noexcept nogil
cdef void blob_put(blob_t *blob) noexcept nogil

cdef inline uint32_t extents_of(uint32_t num_clusters) noexcept nogil:
    return num_clusters // CLUSTERS_PER_EXTENT + (num_clusters % CLUSTERS_PER_EXTENT != 0)


cdef inline extent_t *map_extent(blob_t *blob, uint32_t extent) noexcept nogil:
    return <extent_t *> load_pointer(<void **> &blob.extents[extent])


cdef inline uint32_t map_own(blob_t *blob, uint32_t c) noexcept nogil:
    """The device cluster that the blob owns for its cluster c, which it must have, or 0."""
    cdef extent_t *extent = map_extent(blob, c // CLUSTERS_PER_EXTENT)
    return load32(&extent.clusters[c % CLUSTERS_PER_EXTENT]) if extent != NULL else 0


cdef inline void map_set_own(blob_t *blob, uint32_t c, uint32_t cluster) noexcept nogil:
    """The extent is there; its stripe lock is held, or the gate closed."""
    cdef extent_t *extent = map_extent(blob, c // CLUSTERS_PER_EXTENT)
    store32(&extent.clusters[c % CLUSTERS_PER_EXTENT], cluster)


cdef inline uint32_t map_extent_page(blob_t *blob, uint32_t extent) noexcept nogil:
    cdef extent_t *found = map_extent(blob, extent)
    return load32(&found.page) if found != NULL else 0


cdef inline uint64_t blob_size(blob_t *blob) noexcept nogil:
    return <uint64_t> load32(&blob.num_clusters) * blob.store.cluster_size
