"""Native threads that answer the kernel's data requests and pass on all others.

    kernel  <-- clones of /dev/fuse -->  workers  <-- SOCK_SEQPACKET -->  pyfuse3
            <-- FUSE over io_uring -->    rings     |
                                                    +-- SOCK_SEQPACKET -->  ioctl, grow (Python)

Here is the Python side: mounting, starting and stopping, handles, notifications, counters.
The threads are in lane_threads and lane_rings, the answers in lane_requests.
"""

import os
import socket
from pathlib import Path

from libc.errno cimport ECONNABORTED, EIO, EMFILE, ENODEV, ENOENT, ENOSYS, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.unistd cimport close, usleep, write

from lvolfs._native.cluster_map cimport blob_t
from lvolfs._native.device cimport Device
from lvolfs._native.blob cimport Blob
from lvolfs._native.fuse_protocol cimport (
    FUSE_NOTIFY_INVAL_INODE, fuse_notify_inval_inode_out, fuse_out_header, lane_clone_device,
)
from lvolfs._native.lane_requests cimport (
    HANDLE_MARK, MAX_HANDLES, OPCODES, block_new, counters_t, entry_t, handle_t, is_native,
)
from lvolfs._native.lane_rings cimport (
    ring_add, ring_free, ring_main, ring_new, ring_t, ring_wake,
)
from lvolfs._native.lane_threads cimport (
    CALL_ENDED, CALL_GROW, CALL_IOCTL, MAX_RINGS, MAX_WORKERS, RINGS_RUN,
    lane_control_main, lane_replies_main, lane_t, lane_worker_main, parked_t, pthread_t, worker_t,
)
from lvolfs._native.sync cimport (
    add32, load32, load64, pthread_mutex_destroy, pthread_mutex_init, store32, store64, sub32,
)

cdef extern from *:
    """
    #define FUSE_USE_VERSION 31
    #include <fuse.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdio.h>
    #include <sys/socket.h>

    static void lane_wake_handler(int number) { (void)number; }

    /* A signal that does nothing but end a blocking read with EINTR. */
    static int lane_wake_signal(void) { return SIGRTMIN + 5; }

    static void lane_prepare_signals(void)
    {
        struct sigaction action = {.sa_handler = lane_wake_handler};
        sigaction(lane_wake_signal(), &action, NULL);
    }

    /* Native threads take no signal meant for the process. */
    static int lane_thread(pthread_t *thread, void *(*run)(void *), void *argument)
    {
        sigset_t all, before;
        sigfillset(&all);
        sigdelset(&all, lane_wake_signal());
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = pthread_create(thread, NULL, run, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return error;
    }

    /* "/dev/fd/N" names a connection that is there already, as it does to libfuse. */
    static int lane_open_channel(const char *mountpoint, const char *options)
    {
        int fd = -1;
        if (sscanf(mountpoint, "/dev/fd/%d", &fd) == 1) {
            return fcntl(fd, F_DUPFD_CLOEXEC, 0);
        }
        return fuse_open_channel(mountpoint, options);
    }

    static void lane_wake(pthread_t thread) { pthread_kill(thread, lane_wake_signal()); }
    """
    int lane_open_channel(const char *mountpoint, const char *options) nogil
    void lane_prepare_signals() nogil
    int lane_thread(pthread_t *thread, void *(*run)(void *) noexcept nogil, void *argument) nogil
    void lane_wake(pthread_t thread) noexcept nogil
    int pthread_join(pthread_t thread, void **result) nogil
    int open(const char *path, int flags) nogil
    int shutdown(int fd, int how) nogil
    enum:
        O_CLOEXEC
        O_RDWR
        SHUT_RDWR

cdef enum:
    # Threads to begin with, for all queues.
    INITIAL_RINGS = 256

CALL = "=QIIQQQIIIIII"
ANSWER = "=QIiiI"
globals()["CALL_IOCTL"] = CALL_IOCTL
globals()["CALL_GROW"] = CALL_GROW
globals()["CALL_ENDED"] = CALL_ENDED

# -- the Python side

cdef _socket_pair():
    """Two SOCK_SEQPACKET ends with buffers as large as this user may have."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        # SO_SNDBUFFORCE needs CAP_NET_ADMIN; SO_SNDBUF is silently capped.
        try:
            end.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)
        except PermissionError:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return ours.detach(), theirs.detach()


cdef void _count(counters_t *counters, dict requests, dict errors, list totals):
    cdef int i
    for i in range(OPCODES):
        if load64(&counters.requests[i]):
            requests[i] = requests.get(i, 0) + load64(&counters.requests[i])
        if load64(&counters.errors[i]):
            errors[i] = errors.get(i, 0) + load64(&counters.errors[i])
    totals[0] += load64(&counters.bytes_read)
    totals[1] += load64(&counters.bytes_written)
    totals[2] += load64(&counters.replies_lost)


def _possible_processors():
    """Their numbers: the kernel has an io_uring queue for each."""
    numbers = []
    for part in Path("/sys/devices/system/cpu/possible").read_text().strip().split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


cdef class Lane:
    cdef lane_t lane
    cdef readonly str mountpoint
    cdef int pyfuse3_fd
    cdef readonly int control_fd
    cdef readonly int threads
    cdef bint started
    cdef bint replies_run
    cdef bint control_runs
    cdef bint stopped
    cdef dict held             # fh -> the Blob or Device that keeps the native object alive
    cdef uint64_t serial

    def __cinit__(self, *args, **kwargs):
        memset(&self.lane, 0, sizeof(self.lane))
        self.lane.fd = -1
        self.lane.pyfuse3_socket = self.lane.control_socket = -1
        self.pyfuse3_fd = self.control_fd = -1
        pthread_mutex_init(&self.lane.parked_mutex, NULL)
        pthread_mutex_init(&self.lane.rings_mutex, NULL)

    def __init__(self, mountpoint, options, *, threads=None, max_background=256,
                 bint page_cache=False, bint io_uring=False):
        cdef bytes where = os.fsencode(mountpoint)
        cdef bytes how = os.fsencode(options)
        cdef const char *where_text = where
        cdef const char *how_text = how
        cdef int error
        self.mountpoint = mountpoint
        self.held = {}
        self.threads = min(MAX_WORKERS, threads or max(4, 2 * (os.cpu_count() or 1)))
        self.lane.wanted_background = max(1, min(65535, max_background))
        self.lane.page_cache = page_cache
        self.lane.handles = <handle_t *> calloc(MAX_HANDLES, sizeof(handle_t))
        if self.lane.handles == NULL:
            raise MemoryError
        if io_uring:
            self._make_rings()
        self.lane.pyfuse3_socket, self.pyfuse3_fd = _socket_pair()
        self.lane.control_socket, self.control_fd = _socket_pair()
        with nogil:
            self.lane.fd = lane_open_channel(where_text, how_text)
            error = errno
        if self.lane.fd < 0:
            self._close_all()
            raise OSError(error or EIO, f"cannot mount on '{mountpoint}': {os.strerror(error or EIO)}")
        os.set_inheritable(self.lane.fd, False)

    cdef _make_rings(self):
        """A few for each of the kernel's queues; OSError where io_uring is not to be had."""
        cdef int error = 0
        cdef ring_t *ring
        processors = _possible_processors()
        self.lane.queue_least = min(4, INITIAL_RINGS // len(processors))
        if self.lane.queue_least == 0:
            raise OSError(ENOSYS, f"more than {INITIAL_RINGS} processors")
        self.lane.rings = <void **> calloc(MAX_RINGS, sizeof(void *))
        self.lane.entries = <entry_t **> calloc(MAX_RINGS, sizeof(entry_t *))
        self.lane.queue_rings = <uint32_t *> calloc(len(processors), sizeof(uint32_t))
        self.lane.queue_away = <uint32_t *> calloc(len(processors), sizeof(uint32_t))
        if (self.lane.rings == NULL or self.lane.entries == NULL or self.lane.queue_rings == NULL
                or self.lane.queue_away == NULL):
            self._free_rings()
            raise MemoryError
        for queue in range(len(processors)):
            for _number in range(self.lane.queue_least):
                ring = ring_new(&self.lane, queue, &error)
                if ring == NULL:
                    self._free_rings()
                    raise OSError(-error, f"cannot set up io_uring: {os.strerror(-error)}")
                ring_add(ring)

    cdef _free_rings(self):
        cdef uint32_t i
        for i in range(self.lane.ring_count):
            ring_free(self._ring(i))
        self.lane.ring_count = 0
        free(self.lane.rings)
        free(self.lane.entries)
        free(self.lane.queue_rings)
        free(self.lane.queue_away)
        self.lane.rings = NULL
        self.lane.entries = NULL
        self.lane.queue_rings = self.lane.queue_away = NULL

    cdef ring_t *_ring(self, uint32_t number) noexcept nogil:
        return <ring_t *> self.lane.rings[number]

    def __dealloc__(self):
        self._free_rings()
        free(self.lane.handles)
        pthread_mutex_destroy(&self.lane.parked_mutex)
        pthread_mutex_destroy(&self.lane.rings_mutex)

    cdef _close_all(self):
        cdef worker_t *worker
        cdef parked_t *parked
        cdef uint32_t i
        for i in range(self.lane.count):
            worker = self.lane.workers[i]
            if worker.fd >= 0 and worker.fd != self.lane.fd:
                close(worker.fd)
            worker.fd = -1
            free(worker.block)
            worker.block = NULL
        while self.lane.parked != NULL:
            parked = self.lane.parked
            self.lane.parked = parked.next
            free(parked.request.block)
            free(parked)
        self._free_rings()
        for fd in (self.lane.fd, self.lane.pyfuse3_socket, self.lane.control_socket,
                   self.pyfuse3_fd, self.control_fd):
            if fd >= 0:
                os.close(fd)
        self.lane.fd = self.lane.pyfuse3_socket = self.lane.control_socket = -1
        self.pyfuse3_fd = self.control_fd = -1
        self.stopped = True

    cdef worker_t *_new_worker(self) except NULL:
        cdef worker_t *worker = <worker_t *> calloc(1, sizeof(worker_t))
        if worker == NULL:
            raise MemoryError
        worker.block = block_new()
        if worker.block == NULL:
            free(worker)
            raise MemoryError
        worker.lane = &self.lane
        worker.index = self.lane.count
        # The first worker reads the mounted descriptor itself. Where it cannot be cloned,
        # all share it.
        worker.fd = self.lane.fd
        if worker.index:
            worker.fd = open(b"/dev/fuse", O_RDWR | O_CLOEXEC)
            if worker.fd < 0 or lane_clone_device(worker.fd, self.lane.fd):
                if worker.fd >= 0:
                    close(worker.fd)
                worker.fd = self.lane.fd
        self.lane.workers[self.lane.count] = worker
        self.lane.count += 1
        return worker

    def hand_over(self):
        # libfuse closes the descriptor with its session.
        fd, self.pyfuse3_fd = self.pyfuse3_fd, -1
        return f"/dev/fd/{fd}"

    def start(self):
        cdef worker_t *worker
        cdef uint32_t i
        if self.started or self.stopped:
            raise RuntimeError("a Lane starts once")
        self.started = True
        lane_prepare_signals()
        for _number in range(self.threads):
            self._new_worker()
        self._start_thread(&self.lane.replies_thread, lane_replies_main, &self.lane)
        self.replies_run = True
        self._start_thread(&self.lane.control_thread, lane_control_main, &self.lane)
        self.control_runs = True
        for i in range(self.lane.ring_count):
            add32(&self.lane.rings_alive, 1)
            try:
                self._start_thread(&self._ring(i).thread, ring_main, self._ring(i))
            except OSError:
                sub32(&self.lane.rings_alive, 1)
                raise
            self._ring(i).running = True
        # Counted before the first one runs: the last one to end says so.
        self.lane.alive = self.lane.count
        for i in range(self.lane.count):
            worker = self.lane.workers[i]
            try:
                self._start_thread(&worker.thread, lane_worker_main, worker)
            except OSError:
                sub32(&self.lane.alive, self.lane.count - i)
                raise
            worker.running = True

    cdef int _start_thread(self, pthread_t *thread, void *(*run)(void *) noexcept nogil,
                           void *argument) except -1:
        cdef int error = lane_thread(thread, run, argument)
        if error:
            raise OSError(error, f"cannot start a thread for '{self.mountpoint}'")
        return 0

    def stop(self):
        cdef uint32_t i
        cdef worker_t *worker
        if self.stopped:
            return
        with nogil:
            store32(&self.lane.stopping, 1)
            # A signal can arrive just before the read that it is to end: repeat it.
            while load32(&self.lane.alive) or load32(&self.lane.rings_alive):
                for i in range(self.lane.count):
                    if self.lane.workers[i].running:
                        lane_wake(self.lane.workers[i].thread)
                for i in range(load32(&self.lane.ring_count)):
                    ring_wake(self._ring(i))
                usleep(1000)
            shutdown(self.lane.pyfuse3_socket, SHUT_RDWR)
            shutdown(self.lane.control_socket, SHUT_RDWR)
            for i in range(self.lane.count):
                worker = self.lane.workers[i]
                if worker.running:
                    pthread_join(worker.thread, NULL)
                    worker.running = False
            for i in range(self.lane.ring_count):
                if self._ring(i).running:
                    pthread_join(self._ring(i).thread, NULL)
                    self._ring(i).running = False
            if self.replies_run:
                pthread_join(self.lane.replies_thread, NULL)
            if self.control_runs:
                pthread_join(self.lane.control_thread, NULL)
        for fh in list(self.held):
            self.close_handle(fh)
        self._close_all()

    cdef uint64_t _free_slot(self) except 0:
        for _tried in range(MAX_HANDLES):
            self.serial += 1
            if self.lane.handles[self.serial & (MAX_HANDLES - 1)].fh == 0:
                return self.serial
        raise OSError(EMFILE, f"more than {MAX_HANDLES} open files on '{self.mountpoint}'")

    cdef uint64_t _open(self, owner, blob_t *blob, Device device, bint may_write) except 0:
        # The serial's low 16 bits are the slot, its other 32 tell old handles from new.
        cdef uint64_t serial = self._free_slot()
        cdef handle_t *handle = &self.lane.handles[serial & (MAX_HANDLES - 1)]
        cdef uint64_t fh = <uint64_t> HANDLE_MARK << 48 | (serial & 0xFFFFFFFFFFFF)
        handle.blob = blob
        handle.device = NULL if device is None else &device.dev
        handle.may_write = may_write
        self.held[fh] = owner
        store64(&handle.fh, fh)
        return fh

    def open_volume(self, Blob blob not None, *, bint may_write):
        cdef uint64_t fh = self._open(blob, blob.raw, None, may_write)
        add32(&blob.raw.refs, 1)
        return fh

    def open_device(self, Device device not None, *, bint may_write):
        return self._open(device, NULL, device, may_write)

    def close_handle(self, uint64_t fh):
        cdef handle_t *handle = &self.lane.handles[fh & (MAX_HANDLES - 1)]
        if fh not in self.held or handle.fh != fh:
            return
        with nogil:
            store64(&handle.fh, 0)
            # A full barrier, as whoever enters has one between its own count and its look at fh.
            while add32(&handle.inside, 0):
                usleep(50)
        if handle.blob != NULL:
            sub32(&handle.blob.refs, 1)
        handle.blob = NULL
        handle.device = NULL
        del self.held[fh]

    @staticmethod
    def is_native(uint64_t fh):
        return is_native(fh)

    cdef int _notify(self, int code, const char *body, size_t size) noexcept nogil:
        cdef char message[1024]
        cdef fuse_out_header *out = <fuse_out_header *> message
        out.len = <uint32_t> (sizeof(fuse_out_header) + size)
        out.error = code
        out.unique = 0
        memcpy(message + sizeof(fuse_out_header), body, size)
        if write(self.lane.fd, message, out.len) < 0:
            return -errno
        return 0

    def invalidate_inode(self, uint64_t inode, int64_t offset=0, int64_t length=0):
        cdef fuse_notify_inval_inode_out body
        cdef int error
        body.ino = inode
        body.off = offset
        body.len = length
        with nogil:
            error = self._notify(FUSE_NOTIFY_INVAL_INODE, <char *> &body, sizeof(body))
        # ENOENT: the kernel does not know the inode; ENODEV, ECONNABORTED: unmounted.
        if error and error not in (-ENOENT, -ENODEV, -ECONNABORTED):
            raise OSError(-error, f"cannot invalidate inode {inode}: {os.strerror(-error)}")

    @property
    def open_handles(self):
        return len(self.held)

    def counters(self):
        cdef dict requests = {}
        cdef dict errors = {}
        cdef list totals = [0, 0, 0]
        cdef uint32_t i
        for i in range(self.lane.count):
            _count(&self.lane.workers[i].counters, requests, errors, totals)
        for i in range(self.lane.ring_count):
            _count(&self._ring(i).counters, requests, errors, totals)
        _count(&self.lane.control_counters, requests, errors, totals)
        return {"requests": requests, "errors": errors, "bytes_read": totals[0],
                "bytes_written": totals[1], "replies_lost": totals[2]}

    def negotiated(self):
        return {"offered": self.lane.offered, "accepted": self.lane.accepted,
                "max_write": self.lane.max_write, "max_background": self.lane.max_background,
                "direct_io": bool(self.lane.direct_io),
                "io_uring": load32(&self.lane.rings_state) == RINGS_RUN}
