"""One blob as Python sees it: its data path, its state, and changes of its shape."""

import errno
import os

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from lvolfs._native.blob_shape cimport (
    shape_drop_shared,
    shape_merge,
    shape_resize,
    shape_swap,
)
from lvolfs._native.cluster_map cimport (
    CLUSTERS_PER_EXTENT,
    blob_put,
    blob_size,
    extent_t,
    map_extent,
    map_extent_page,
    map_forget_effective,
    map_fragmap,
    map_own,
    map_resolve,
    map_seek,
    store_t,
)
from lvolfs._native.device cimport Device, device_t
from lvolfs._native.io_stats cimport io_stat_ops, io_stats_dict, io_stats_reset
from lvolfs._native.partial_cluster cimport blob_complete
from lvolfs._native.sync cimport (
    gate_close,
    gate_enter,
    gate_exit,
    gate_is_mine,
    gate_open,
    load32,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from lvolfs._native.volume_io cimport blob_flush, blob_read, blob_read_own, blob_write
from lvolfs._native.volume_space cimport (
    blob_allocate,
    blob_fill,
    blob_unmap,
    blob_unmap_cluster,
    blob_write_zeroes,
)


cdef int set_bytes(uint8_t **where, uint32_t *length, data) except -1:
    cdef bytes source = bytes(data)
    cdef uint8_t *copy = NULL
    if source:
        copy = <uint8_t *> malloc(len(source))
        if copy == NULL:
            raise MemoryError
        memcpy(copy, PyBytes_AS_STRING(source), len(source))
    free(where[0])
    where[0] = copy
    length[0] = len(source)
    return 0


cdef int read_as_device(
    void *context, void *buf, uint64_t length, uint64_t offset
) noexcept nogil:
    return blob_read(<blob_t *> context, buf, offset, length)


cdef class Blob:
    def __dealloc__(self):
        if self.raw != NULL:
            blob_put(self.raw)

    cdef _raise_for(self, int rc, str what):
        if rc:
            raise OSError(-rc, f"{what}: {self.engine.device.explain(-rc)}")

    cdef store_t *_open(self) except NULL:
        if load32(&self.raw.store.closed):
            raise OSError(errno.EBADF, "the store is closed")
        return self.raw.store

    def _require_exclusive(self):
        if not gate_is_mine(&self._open().gate):
            raise RuntimeError("this change needs Engine.exclusive()")

    # -- state

    @property
    def id(self):
        return self.raw.id

    @property
    def num_clusters(self):
        return load32(&self.raw.num_clusters)

    @property
    def num_allocated_clusters(self):
        return load32(&self.raw.owned)

    @property
    def size(self):
        return blob_size(self.raw)

    @property
    def thin(self):
        return bool(self.raw.thin)

    @property
    def read_only(self):
        return bool(self.raw.read_only)

    @property
    def rle(self):
        return bool(self.raw.rle)

    @property
    def failed(self):
        return load32(&self.raw.failed)

    @property
    def parent(self):
        return self._parent

    @property
    def external_parent(self):
        return self._external

    @property
    def chain(self):
        return [self.raw.chain[i] for i in range(self.raw.chain_length)]

    @property
    def extent_pages(self):
        return {
            i: map_extent_page(self.raw, i)
            for i in range(self.raw.num_extents) if map_extent_page(self.raw, i)
        }

    @property
    def head(self):
        return PyBytes_FromStringAndSize(<char *> self.raw.head, self.raw.head_length)

    @property
    def checksums(self):
        return PyBytes_FromStringAndSize(<char *> self.raw.checksums, self.raw.checksums_length)

    @property
    def refs(self):
        return load32(&self.raw.refs)

    @property
    def writes(self):
        return io_stat_ops(self.raw.stats.write)

    @property
    def io_stats(self):
        return io_stats_dict(&self.raw.stats)

    def reset_io_stats(self, str what):
        io_stats_reset(&self.raw.stats, what)

    def as_device(self, str path):
        """A read-only Device that shows what the blob shows now and later, under a name."""
        cdef Device device = Device.__new__(Device)
        device.dev.fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        device.path = path
        device.dev.size = blob_size(self.raw)
        device.dev.block_size = 512
        device.dev.read_only = True
        device.dev.reader = read_as_device
        device.dev.reader_context = self.raw
        device.owner = self
        return device

    # -- data

    def pread(self, length, offset):
        cdef uint64_t size = length, at = offset
        cdef int rc
        if at > blob_size(self.raw) or size > blob_size(self.raw) - at:
            self._raise_for(-EINVAL, f"read of {size} bytes at {at}, past the end")
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef char *buf = PyBytes_AS_STRING(data)
        with nogil:
            rc = blob_read(self.raw, buf, at, size)
        self._raise_for(rc, f"read of {size} bytes at {at}")
        return data

    def readinto(self, uint8_t[::1] buffer not None, offset):
        cdef uint64_t size = buffer.shape[0], at = offset
        cdef int rc = 0
        if size:
            with nogil:
                rc = blob_read(self.raw, &buffer[0], at, size)
        self._raise_for(rc, f"read of {size} bytes at {at}")

    def pwrite(self, const uint8_t[::1] data not None, offset):
        cdef uint64_t size = data.shape[0], at = offset
        cdef const uint8_t *source = &data[0] if size else NULL
        cdef int rc
        with nogil:
            rc = blob_write(self.raw, source, at, size)
        self._raise_for(rc, f"write of {size} bytes at {at}")

    def unmap(self, offset, length):
        cdef uint64_t at = offset, size = length
        cdef int rc
        with nogil:
            rc = blob_unmap(self.raw, at, size)
        self._raise_for(rc, f"unmap of {size} bytes at {at}")

    def write_zeroes(self, offset, length):
        cdef uint64_t at = offset, size = length
        cdef int rc
        with nogil:
            rc = blob_write_zeroes(self.raw, at, size)
        self._raise_for(rc, f"zeroing of {size} bytes at {at}")

    def allocate(self, offset, length):
        cdef uint64_t at = offset, size = length
        cdef int rc
        with nogil:
            rc = blob_allocate(self.raw, at, size)
        self._raise_for(rc, f"allocation of {size} bytes at {at}")

    def unmap_cluster(self, uint32_t index):
        cdef int rc
        with nogil:
            rc = blob_unmap_cluster(self.raw, index)
        self._raise_for(rc, f"unmap of cluster {index}")

    def read_own_cluster(self, uint32_t index):
        cdef bytes data = PyBytes_FromStringAndSize(NULL, self.raw.store.cluster_size)
        cdef char *buf = PyBytes_AS_STRING(data)
        cdef int rc
        with nogil:
            rc = blob_read_own(self.raw, index, buf)
        self._raise_for(rc, f"read of own cluster {index}")
        return data

    def flush(self):
        cdef int rc
        with nogil:
            rc = blob_flush(self.raw)
        self._raise_for(rc, "flush")

    def seek_data(self, offset):
        return self._seek(offset, True)

    def seek_hole(self, offset):
        return self._seek(offset, False)

    def _seek(self, offset, bint data):
        cdef uint64_t at = offset
        cdef long found
        with nogil:
            found = map_seek(self.raw, at, data)
        if found < 0:
            self._raise_for(<int> found, f"seek to {'data' if data else 'a hole'} from {at}")
        return found

    cdef uint32_t _window(self, first, count) except? 0:
        cdef uint64_t end
        if count is None:
            count = max(0, self.raw.num_clusters - first)
        end = <uint64_t> first + <uint64_t> count
        if end > self.raw.num_clusters:
            raise OSError(
                errno.ERANGE,
                f"clusters {first} to {end - 1} reach past the end ({self.raw.num_clusters})",
            )
        return count

    def _complete(self):
        """Before the map is looked at as a whole: partial clusters are not in it."""
        cdef int rc
        with nogil:
            rc = blob_complete(self.raw)
        self._raise_for(rc, "completing clusters that are copied on write")

    def fragmap(self, uint32_t first=0, count=None):
        cdef uint32_t n = self._window(first, count)
        cdef bytearray bits = bytearray((n + 7) // 8)
        cdef uint8_t *out = <uint8_t *> PyByteArray_AS_STRING(bits)
        self._complete()
        with nogil:
            map_fragmap(self.raw, first, n, out)
        return bytes(bits)

    def clusters(self, uint32_t first=0, count=None):
        cdef store_t *store = self._open()
        cdef uint32_t n = self._window(first, count)
        cdef bytearray found = bytearray(<uint64_t> n * 4)
        cdef uint32_t *out = <uint32_t *> PyByteArray_AS_STRING(found)
        cdef uint32_t shard, i
        self._complete()
        with nogil:
            shard = gate_enter(&store.gate)
            for i in range(n):
                if first + i < self.raw.num_clusters:
                    out[i] = map_own(self.raw, first + i)
            gate_exit(&store.gate, shard)
        return bytes(found)

    def owned(self):
        cdef store_t *store = self._open()
        cdef list found = []
        cdef extent_t *extent
        cdef uint32_t shard, e, i, c
        with nogil:
            # The map of a whole store is shown with an lvol in it that has lost a write, too.
            blob_complete(self.raw)
            shard = gate_enter(&store.gate)
        try:
            for e in range(self.raw.num_extents):
                extent = map_extent(self.raw, e)
                if extent == NULL:
                    continue
                for i in range(CLUSTERS_PER_EXTENT):
                    c = load32(&extent.clusters[i])
                    if c:
                        found.append((e * CLUSTERS_PER_EXTENT + i, c))
        finally:
            gate_exit(&store.gate, shard)
        return found

    def resolve(self, uint32_t first=0, count=None):
        cdef store_t *store = self._open()
        cdef uint32_t n = self._window(first, count)
        cdef bytearray found = bytearray(<uint64_t> n * 4)
        cdef uint32_t *out = <uint32_t *> PyByteArray_AS_STRING(found)
        cdef device_t *external = NULL
        cdef uint32_t shard, i
        self._complete()
        with nogil:
            shard = gate_enter(&store.gate)
            for i in range(n):
                if first + i < self.raw.num_clusters:
                    out[i] = map_resolve(self.raw, first + i, &external)
            gate_exit(&store.gate, shard)
        return bytes(found)

    def fill_from_ancestors(self, uint32_t first, uint32_t count, *, uint32_t depth, bint zeros):
        cdef uint32_t c, filled = 0
        cdef bint did
        cdef int rc = 0
        self._window(first, count)
        with nogil:
            for c in range(first, first + count):
                rc = blob_fill(self.raw, c, depth, zeros, &did)
                if rc:
                    break
                filled += did
        self._raise_for(rc, f"copying clusters {first} to {first + count - 1} from the parent")
        return filled

    # -- shape

    def set_head(self, head):
        self._require_exclusive()
        set_bytes(&self.raw.head, &self.raw.head_length, head)

    def set_checksums(self, records):
        self._require_exclusive()
        if len(records) % 12:
            raise ValueError("checksum records have 12 bytes each")
        set_bytes(&self.raw.checksums, &self.raw.checksums_length, records)

    def set_thin(self, bint thin):
        self._require_exclusive()
        self.raw.thin = thin

    def set_read_only(self, bint read_only):
        self._require_exclusive()
        self.raw.read_only = read_only

    def set_parent(self, Blob parent):
        """Also drops an external parent."""
        self._require_exclusive()
        if parent is not None and parent.raw.store != self.raw.store:
            raise ValueError("the parent is in another store")
        self._parent = parent
        self.raw.parent = NULL if parent is None else parent.raw
        self.raw.external = NULL
        self.raw.has_external = False
        self._external = None
        map_forget_effective(self.raw.store)

    def set_external_parent(self, Device device, *, bint missing=False):
        """Also drops a parent in the store."""
        self._require_exclusive()
        self._parent = None
        self.raw.parent = NULL
        self._external = device
        self.raw.external = NULL if device is None else &device.dev
        self.raw.has_external = device is not None or missing
        map_forget_effective(self.raw.store)

    def resize(self, uint32_t num_clusters):
        self._require_exclusive()
        cdef int rc
        with nogil:
            rc = shape_resize(self.raw, num_clusters)
        self._raise_for(rc, f"resize to {num_clusters} clusters")

    def extend(self, uint32_t num_clusters):
        cdef store_t *store = self._open()
        cdef int rc = 0
        with nogil:
            # No commit is under way, and no request: the next commit takes map and size as one.
            pthread_mutex_lock(&store.commit_lock)
            rc = -<int> load32(&store.failed)
            if rc == 0:
                gate_close(&store.gate)
                if num_clusters > self.raw.num_clusters:
                    rc = shape_resize(self.raw, num_clusters)
                gate_open(&store.gate)
            pthread_mutex_unlock(&store.commit_lock)
        self._raise_for(rc, f"extension to {num_clusters} clusters")

    def swap_maps(self, Blob other not None):
        self._require_exclusive()
        self._raise_for(shape_swap(self.raw, other.raw), "exchange of cluster maps")

    def merge_from(self, Blob parent not None):
        self._require_exclusive()
        cdef int rc
        with nogil:
            rc = shape_merge(self.raw, parent.raw)
        self._raise_for(rc, "merge of the parent's clusters")

    def drop_shared_with(self, Blob child not None):
        self._require_exclusive()
        shape_drop_shared(self.raw, child.raw)
