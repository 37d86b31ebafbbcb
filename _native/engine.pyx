"""The store in memory and its data path, as Python sees them.

This is the one place where the errno of the data plane becomes an OSError.
"""

import errno
import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport ENOMEM, ENOSPC, ERANGE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from lvolfs._native.adoption cimport mark_clusters_of, mark_pages_of, set_chain, set_extents
from lvolfs._native.allocator cimport (
    allocator_claim_beyond,
    allocator_destroy,
    allocator_free,
    allocator_grow,
    allocator_init,
    allocator_mark,
    allocator_pending,
    allocator_release,
    allocator_t,
)
from lvolfs._native.blob cimport Blob, set_bytes
from lvolfs._native.blob_shape cimport shape_release_all, shape_resize
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    blob_get,
    blob_new,
    blob_put,
    extents_of,
)
from lvolfs._native.commit cimport (
    commit_blob,
    commit_destroy,
    commit_forget,
    commit_locked,
    commit_set_reserve,
    store_flush,
    store_settle,
)
from lvolfs._native.device cimport (
    device_flush,
    device_next_data,
    device_pread,
    device_pwrite_page,
)
from lvolfs._native cimport faults
from lvolfs._native.flusher cimport flusher_start, flusher_stop
from lvolfs._native.metadata cimport MD_PAGE, extent_parse, page_crc_is_right
from lvolfs._native.partial_cluster cimport (
    partials_allow,
    partials_end,
    partials_hold,
    store_complete,
)
from lvolfs._native.sync cimport (
    cond_init_timed,
    gate_close,
    gate_destroy,
    gate_init,
    gate_is_mine,
    gate_open,
    load32,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    store32,
)

import weakref

cdef enum:
    SCAN_BATCH = 1 << 20        # bytes of metadata region read at once


cdef class _Exclusive:
    """What Engine.exclusive() returns."""
    cdef Engine engine
    cdef Blob doomed

    def __cinit__(self, Engine engine, Blob doomed):
        self.engine = engine
        self.doomed = doomed

    def __enter__(self):
        cdef store_t *store = self.engine._open()
        cdef blob_t *doomed = NULL if self.doomed is None else self.doomed.raw
        cdef int rc
        if gate_is_mine(&store.gate):
            raise RuntimeError("Engine.exclusive() is not reentrant")
        with nogil:
            # The long part, data of seconds, goes before the gate is closed.
            partials_hold(store)
            rc = store_complete(store, True, doomed)
            if rc != -ENOMEM and rc != -ENOSPC:
                rc = store_flush(store)
            if rc == 0:
                pthread_mutex_lock(&store.commit_lock)
                gate_close(&store.gate)
                rc = partials_end(store, doomed)
                if rc == 0:
                    rc = commit_locked(store)
                if rc:
                    gate_open(&store.gate)
                    pthread_mutex_unlock(&store.commit_lock)
            if rc:
                partials_allow(store)
        self.engine._raise_for(rc, "flush")

    def __exit__(self, kind, error, tb):
        cdef store_t *store = self.engine.store
        with nogil:
            gate_open(&store.gate)
            pthread_mutex_unlock(&store.commit_lock)
            partials_allow(store)
            # Gives back what was freed inside. An error leaves the store dirty or failed,
            # and is the next flush's to report: the change itself is durable.
            if allocator_pending(&store.clusters) or allocator_pending(&store.pages):
                store_flush(store)
                store_settle(store)


cdef class Engine:
    def __cinit__(
        self, Device device not None, *, uint32_t cluster_size, uint32_t page_size,
        uint32_t md_start, uint32_t md_len, uint32_t total_clusters, bint read_only=False,
    ):
        cdef store_t *store
        cdef uint64_t md_bytes = (<uint64_t> md_start + md_len) * page_size
        cdef uint32_t c
        if page_size < MD_PAGE or cluster_size < page_size or cluster_size % MD_PAGE:
            raise OSError(
                errno.EINVAL, f"impossible geometry: cluster {cluster_size}, page {page_size}",
                device.path,
            )
        if <uint64_t> total_clusters * cluster_size > device.dev.size:
            raise OSError(
                errno.EINVAL,
                f"{total_clusters} clusters of {cluster_size} bytes do not fit into "
                f"{device.dev.size} bytes", device.path,
            )
        if (md_bytes + cluster_size - 1) // cluster_size > total_clusters:
            raise OSError(errno.EINVAL, "the metadata do not fit into the store", device.path)
        store = <store_t *> calloc(1, sizeof(store_t))
        if store == NULL:
            raise MemoryError
        self.store = store
        self.device = device
        self._blobs = weakref.WeakValueDictionary()
        store.dev = &device.dev
        store.cluster_size = cluster_size
        store.page_size = page_size
        store.md_start = md_start
        store.md_len = md_len
        store.total_clusters = total_clusters
        store.dev.needed = <uint64_t> total_clusters * cluster_size
        store.metadata_clusters = <uint32_t> ((md_bytes + cluster_size - 1) // cluster_size)
        store.read_only = read_only
        gate_init(&store.gate)
        pthread_mutex_init(&store.commit_lock, NULL)
        pthread_mutex_init(&store.flush_lock, NULL)
        pthread_cond_init(&store.flush_done, NULL)
        cond_init_timed(&store.flusher_wake)
        if allocator_init(&store.clusters, total_clusters) or allocator_init(&store.pages, md_len):
            raise MemoryError
        for c in range(store.metadata_clusters):
            allocator_mark(&store.clusters, c)

    def __dealloc__(self):
        cdef store_t *store = self.store
        cdef blob_t *blob
        if store == NULL:
            return
        flusher_stop(store)
        # Every Blob holds its engine, so only the list's own references are left.
        while store.blobs != NULL:
            blob = store.blobs
            store.blobs = blob.next
            blob_put(blob)
        allocator_destroy(&store.clusters)
        allocator_destroy(&store.pages)
        pthread_cond_destroy(&store.flusher_wake)
        pthread_cond_destroy(&store.flush_done)
        pthread_mutex_destroy(&store.flush_lock)
        pthread_mutex_destroy(&store.commit_lock)
        gate_destroy(&store.gate)
        free(store)

    cdef store_t *_open(self) except NULL:
        if load32(&self.store.closed):
            raise OSError(errno.EBADF, "the store is closed", self.device.path)
        return self.store

    cdef _raise_for(self, int rc, str what):
        if rc:
            raise OSError(-rc, f"{what}: {self.device.explain(-rc)}", self.device.path)

    cdef Blob _wrap(self, blob_t *blob):
        """A Python object for it, with a reference of its own."""
        cdef Blob wrapped = Blob.__new__(Blob)
        blob_get(blob)
        wrapped.raw = blob
        wrapped.engine = self
        self._blobs[blob.id] = wrapped
        return wrapped

    def _require_exclusive(self):
        if not gate_is_mine(&self._open().gate):
            raise RuntimeError("this change needs Engine.exclusive()")

    # -- geometry and state

    @property
    def cluster_size(self):
        return self.store.cluster_size

    @property
    def page_size(self):
        return self.store.page_size

    @property
    def md_len(self):
        return self.store.md_len

    @property
    def total_clusters(self):
        return self.store.total_clusters

    @property
    def metadata_clusters(self):
        return self.store.metadata_clusters

    @property
    def free_clusters(self):
        """Free ones, those too that the next flush gives back."""
        return allocator_free(&self.store.clusters) + allocator_pending(&self.store.clusters)

    @property
    def free_pages(self):
        """Free ones; as many as the longest chain are kept for rewriting chains."""
        return allocator_free(&self.store.pages) + allocator_pending(&self.store.pages)

    @property
    def reserved_pages(self):
        return load32(&self.store.page_reserve)

    @property
    def read_only(self):
        return bool(self.store.read_only)

    @property
    def failed(self):
        return load32(&self.store.failed)

    @property
    def dirty(self):
        """Whether there is something that the next flush would have to do."""
        cdef store_t *store = self.store
        return bool(
            load32(&store.dirty) or load32(&store.written) or load32(&store.partial_clusters)
        )

    # -- reading metadata

    def read_page(self, uint32_t index):
        cdef store_t *store = self._open()
        if index >= store.md_len:
            raise OSError(
                errno.ERANGE, f"metadata page {index} is past the end ({store.md_len})",
                self.device.path,
            )
        return self.device.pread(MD_PAGE, (<uint64_t> store.md_start + index) * store.page_size)

    def scan_pages(
        self, uint32_t first=0, count=None, list torn=None, list unreadable=None
    ):
        cdef store_t *store = self._open()
        cdef uint32_t end = store.md_len if count is None else min(store.md_len, first + count)
        cdef uint32_t batch = max(1, SCAN_BATCH // store.page_size)
        cdef uint32_t index = first
        cdef uint32_t one_by_one = first    # up to there
        cdef uint32_t n
        cdef uint64_t base, data
        cdef int rc = 0
        cdef uint8_t *buf = <uint8_t *> malloc(<uint64_t> batch * store.page_size)
        cdef list found = []
        if buf == NULL:
            raise MemoryError
        try:
            while index < end:
                base = (<uint64_t> store.md_start + index) * store.page_size
                with nogil:
                    data = device_next_data(store.dev, base)
                if data > base:
                    # Whole slots of a hole hold no page.
                    index += <uint32_t> min(
                        <uint64_t> (end - index), (data - base) // store.page_size
                    )
                    if index >= end:
                        break
                    base = (<uint64_t> store.md_start + index) * store.page_size
                n = 1 if index < one_by_one else min(batch, end - index)
                with nogil:
                    rc = device_pread(store.dev, buf, <uint64_t> n * store.page_size, base)
                if rc and (unreadable is None or -rc not in LOST_SECTORS):
                    self._raise_for(rc, f"reading metadata pages {index} to {index + n - 1}")
                if rc and n > 1:
                    one_by_one = index + n
                    continue
                if rc:
                    unreadable.append(index)
                else:
                    take_pages(store, buf, index, n, found, torn)
                index += n
        finally:
            free(buf)
        return found

    def load_extents(self, dict pages, uint32_t num_clusters):
        cdef store_t *store = self._open()
        cdef uint8_t[4096] page
        cdef uint32_t[512] clusters
        cdef const char *reason
        cdef uint32_t extent, index
        cdef int rc
        cdef dict found = {}
        cdef list bad = []
        for extent, index in pages.items():
            if extent >= extents_of(num_clusters):
                raise OSError(
                    errno.EINVAL, f"extent {extent} of {num_clusters} clusters", self.device.path
                )
            if index >= store.md_len:
                bad.append((extent, f"page {index} is past the end of the metadata"))
                continue
            with nogil:
                rc = device_pread(
                    store.dev, page, MD_PAGE,
                    (<uint64_t> store.md_start + index) * store.page_size,
                )
            if rc:
                bad.append((extent, f"page {index}: {os.strerror(-rc)}"))
                continue
            memset(clusters, 0, sizeof(clusters))
            reason = extent_parse(page, extent, num_clusters, clusters)
            if reason != NULL:
                bad.append((extent, f"page {index}: {reason.decode('ascii')}"))
            elif some_of(clusters):
                found[extent] = PyBytes_FromStringAndSize(<char *> clusters, sizeof(clusters))
        return found, bad

    # -- filling

    def mark_clusters(self, clusters):
        cdef store_t *store = self._open()
        for c in clusters:
            if allocator_mark(&store.clusters, c) == -ERANGE:
                raise OSError(
                    errno.ERANGE, f"cluster {c} is past the end ({store.total_clusters})",
                    self.device.path,
                )

    def mark_pages(self, pages):
        cdef store_t *store = self._open()
        for page in pages:
            if allocator_mark(&store.pages, page) == -ERANGE:
                raise OSError(
                    errno.ERANGE, f"metadata page {page} is past the end ({store.md_len})",
                    self.device.path,
                )

    def adopt_blob(
        self, uint64_t blob_id, *, uint32_t num_clusters, dict clusters, dict extent_pages, chain,
        head, checksums=b"", bint thin, bint read_only, bint rle=False, Blob shares_with=None,
    ):
        cdef store_t *store = self._open()
        cdef blob_t *blob = blob_new(store, blob_id, num_clusters)
        cdef blob_t *shared
        cdef list marked_pages = []
        cdef uint32_t marked = 0
        if blob == NULL:
            raise MemoryError
        try:
            blob.thin = thin
            blob.read_only = read_only
            blob.rle = rle
            set_extents(blob, clusters, {} if rle else extent_pages)
            set_bytes(&blob.head, &blob.head_length, head)
            set_bytes(&blob.checksums, &blob.checksums_length, checksums)
            set_chain(blob, chain)
            shared = NULL if shares_with is None else shares_with.raw
            mark_pages_of(blob, shared, marked_pages)
            marked = mark_clusters_of(blob, shared)
        except BaseException:
            for page in marked_pages:
                allocator_release(&store.pages, page)
            blob_put(blob)
            raise
        blob.owned = marked
        link_blob(store, blob)
        return self._wrap(blob)

    # -- changes

    def exclusive(self, Blob doomed=None):
        return _Exclusive(self, doomed)

    def create_blob(self, uint32_t num_clusters, *, bint thin, head):
        self._require_exclusive()
        cdef store_t *store = self.store
        cdef blob_t *blob
        cdef long page = allocator_claim_beyond(
            &store.pages, 0, load32(&store.page_reserve)
        )
        cdef int rc
        if page < 0:
            raise OSError(
                errno.ENOSPC, f"all {store.md_len} metadata pages are in use: delete lvols or "
                "snapshots first", self.device.path,
            )
        blob = blob_new(store, (<uint64_t> 1 << 32) | <uint64_t> page, 0)
        if blob == NULL:
            allocator_release(&store.pages, <uint32_t> page)
            raise MemoryError
        blob.thin = thin
        with nogil:
            rc = shape_resize(blob, num_clusters)
        if rc == 0:
            try:
                set_bytes(&blob.head, &blob.head_length, head)
            except MemoryError:
                rc = -ENOMEM
        if rc:
            shape_release_all(blob)
            blob_put(blob)
            self._raise_for(rc, f"a blob of {num_clusters} clusters")
        link_blob(store, blob)
        return self._wrap(blob)

    def discard_unpersisted(self, Blob blob not None):
        self._require_exclusive()
        if blob.raw.chain_length:
            raise ValueError(f"blob {blob.raw.id:#x} has been persisted")
        shape_release_all(blob.raw)
        commit_forget(blob.raw)

    def persist(self, Blob blob not None):
        self._require_exclusive()
        cdef int rc
        with nogil:
            rc = commit_blob(blob.raw)
        self._raise_for(rc, f"writing the metadata of blob {blob.raw.id:#x}")

    def destroy(self, Blob blob not None):
        self._require_exclusive()
        cdef int rc
        with nogil:
            rc = commit_destroy(blob.raw)
        self._raise_for(rc, f"deleting blob {blob.raw.id:#x}")

    def write_superblock(self, const uint8_t[::1] page not None):
        """Once clean = 1 is written, the next change of metadata writes clean = 0 again."""
        cdef store_t *store = self._open()
        cdef int rc
        cdef bint clean
        if page.shape[0] != MD_PAGE:
            raise ValueError(f"a super block has {MD_PAGE} bytes, not {page.shape[0]}")
        clean = page[16] != 0
        with nogil:
            rc = device_pwrite_page(store.dev, &page[0], 0)
            if rc == 0:
                rc = device_flush(store.dev)
        self._raise_for(rc, "writing the super block")
        store.super_marked_dirty = not clean

    def flush(self):
        cdef int incomplete = self._complete()
        self._commit()
        self._raise_for(incomplete, "flush of clusters that are copied on write")

    cdef int _complete(self) except? -1:
        """What is copied on write; 0 or -errno. Whoever has the gate has nothing to complete."""
        cdef store_t *store = self._open()
        cdef int rc = 0
        if not gate_is_mine(&store.gate):
            with nogil:
                rc = store_complete(store, True, NULL)
        return rc

    def _commit(self):
        cdef store_t *store = self._open()
        cdef bint mine = gate_is_mine(&store.gate)
        cdef int rc
        with nogil:
            rc = commit_locked(store) if mine else store_flush(store)
        self._raise_for(rc, "flush")

    def settle(self):
        """Flushes, and waits until everything freed so far can be used again. A cluster that
        cannot be completed is no error here."""
        self._complete()
        self._commit()
        with nogil:
            store_settle(self.store)

    def seed_fault(self, str name):
        """Plants a mistake; for tests alone, which must ask for it in the environment."""
        if os.environ.get("LVOLFS_SEEDED_FAULTS") != "1":
            raise PermissionError(errno.EPERM, "seeded faults are for tests alone")
        self._open().faults |= SEEDED_FAULTS.get(name) or UNLUCKY_MOMENTS[name]

    def start_flusher(self, double interval=1.0):
        cdef int rc = flusher_start(self._open(), interval)
        self._raise_for(rc, "starting the flusher")

    def stop_flusher(self):
        with nogil:
            flusher_stop(self.store)

    def used_pages_mask(self):
        return mask_of(&self.store.pages)

    def used_clusters_mask(self):
        return mask_of(&self.store.clusters)

    def grow(self, uint32_t total_clusters):
        self._require_exclusive()
        if <uint64_t> total_clusters * self.store.cluster_size > self.device.dev.size:
            raise OSError(
                errno.EINVAL, f"{total_clusters} clusters do not fit into the device",
                self.device.path,
            )
        self._raise_for(allocator_grow(&self.store.clusters, total_clusters), "growing")
        self.store.total_clusters = max(self.store.total_clusters, total_clusters)
        self.device.dev.needed = <uint64_t> self.store.total_clusters * self.store.cluster_size

    def close(self):
        """Stops serving; memory is freed with the last Blob."""
        cdef store_t *store = self.store
        if store.closed:
            return
        with nogil:
            flusher_stop(store)
            store_settle(store)
            gate_close(&store.gate)
            store32(&store.closed, 1)
            gate_open(&store.gate)


# What a device says of single sectors that are lost; the others can be read on.
LOST_SECTORS = frozenset(
    {errno.EIO, errno.ENODATA, errno.EREMOTEIO, errno.EBADMSG, errno.EILSEQ, errno.ETIMEDOUT}
)

SEEDED_FAULTS = {
    "no-data-barrier": faults.FAULT_NO_DATA_BARRIER,
    "no-page-barrier": faults.FAULT_NO_PAGE_BARRIER,
    "roots-first": faults.FAULT_ROOTS_FIRST,
    "reuse-early": faults.FAULT_REUSE_EARLY,
    "short-write": faults.FAULT_SHORT_WRITE,
    "lost-mark": faults.FAULT_LOST_MARK,
    "chain-first": faults.FAULT_CHAIN_FIRST,
    "stale-crc": faults.FAULT_STALE_CRC,
    "merge-in-place": faults.FAULT_MERGE_IN_PLACE,
    "clean-kept": faults.FAULT_CLEAN_KEPT,
    "free-before-map": faults.FAULT_FREE_BEFORE_MAP,
    "copy-forgotten": faults.FAULT_COPY_FORGOTTEN,
    "flush-leaves-partial": faults.FAULT_FLUSH_LEAVES_PARTIAL,
}

# No mistakes, but moments that chance does not find.
UNLUCKY_MOMENTS = {"commit-in-release": faults.COMMIT_IN_RELEASE}


cdef int take_pages(
    store_t *store, const uint8_t *buf, uint32_t first, uint32_t count, list found, list torn
) except -1:
    """Appends the pages of a batch whose CRC is right, and what looks like torn first ones."""
    cdef const uint8_t *page
    cdef uint32_t i
    for i in range(count):
        page = buf + <uint64_t> i * store.page_size
        if not page_is_candidate(page):
            continue
        if page_crc_is_right(page):
            found.append((first + i, PyBytes_FromStringAndSize(<char *> page, MD_PAGE)))
        elif torn is not None and page_names_itself(page, first + i):
            torn.append(first + i)
    return 0


cdef bint page_names_itself(const uint8_t *page, uint32_t index) noexcept nogil:
    """Whether it has the id and the sequence number of a blob's first page."""
    cdef uint64_t blob_id
    cdef uint32_t sequence
    memcpy(&blob_id, page, 8)
    memcpy(&sequence, page + 8, 4)
    return blob_id == ((<uint64_t> 1 << 32) | index) and sequence == 0


cdef bint page_is_candidate(const uint8_t *page) noexcept nogil:
    """Spares the CRC of zeroed pages: an id is never 0."""
    cdef uint64_t blob_id
    memcpy(&blob_id, page, 8)
    return blob_id != 0


cdef void link_blob(store_t *store, blob_t *blob) noexcept:
    """The store's list takes the first reference over."""
    blob.next = store.blobs
    store.blobs = blob
    # An adopted chain may be the longest; a new blob has none yet.
    if blob.chain_length > store.page_reserve or store.page_reserve == 0:
        commit_set_reserve(store)


cdef bytes mask_of(allocator_t *a):
    cdef uint32_t size = (a.length + 7) // 8
    # Not a bytes object changed in place: one of length 1 is shared by the whole interpreter.
    cdef bytearray bits = bytearray((<uint8_t *> a.words)[:size])
    if a.length % 8:
        # The bits past the end are kept set.
        bits[size - 1] &= (1 << (a.length % 8)) - 1
    return bytes(bits)


cdef bint some_of(const uint32_t *clusters) noexcept nogil:
    """Whether an extent owns anything."""
    cdef uint32_t i
    for i in range(CLUSTERS_PER_EXTENT):
        if clusters[i]:
            return True
    return False
