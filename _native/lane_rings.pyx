"""The threads that serve FUSE over io_uring. One system call hands a reply over and waits for
the next request."""

from libc.errno cimport EAGAIN, EBUSY, EINTR, EIO, ENOMEM, ENOTCONN, errno
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close, read, write

from lvolfs._native.fuse_protocol cimport fuse_in_header, lane_ring_head
from lvolfs._native.lane_requests cimport (
    MAX_WRITE, PAGE, entry_t, reply_status, request_is_whole, request_t,
)
from lvolfs._native.lane_threads cimport (
    MAX_QUEUE_RINGS, MAX_RINGS, RINGS_RUN, RINGS_UNDECIDED, lane_handle, lane_protect_thread,
    lane_t,
)
from lvolfs._native.sync cimport (
    add32, add64, cas_pointer, load32, load_pointer, pthread_create, pthread_mutex_lock,
    pthread_mutex_unlock, store32, sub32,
)

cdef extern from "io_ring.h" nogil:
    """
    #include <sys/eventfd.h>

    static inline int lane_eventfd(void) { return eventfd(0, EFD_CLOEXEC); }

    /* What REGISTER takes: at the end of the page with the headers. */
    static inline const struct iovec *lane_entry_buffers(void *head, void *payload, size_t size)
    {
        struct iovec *buffers = (struct iovec *)((char *)head + 4096) - 2;
        buffers[0].iov_base = head;
        buffers[0].iov_len = sizeof(struct lane_ring_head);
        buffers[1].iov_base = payload;
        buffers[1].iov_len = size;
        return buffers;
    }
    """
    struct iovec:
        pass
    int io_ring_open(io_ring_t *ring, uint32_t entries) noexcept
    int io_ring_enable(io_ring_t *ring) noexcept
    void io_ring_close(io_ring_t *ring) noexcept
    int io_ring_enter(io_ring_t *ring, uint32_t least) noexcept
    uint32_t io_ring_unsubmitted(io_ring_t *ring) noexcept
    int io_ring_reap(io_ring_t *ring, uint64_t *user_data, int *result) noexcept
    int io_ring_read(io_ring_t *ring, int fd, void *data, uint32_t size,
                     uint64_t user_data) noexcept
    int io_ring_fuse(io_ring_t *ring, int fd, uint32_t what, uint16_t queue, uint64_t commit_id,
                     const iovec *buffers, uint64_t user_data) noexcept
    int lane_eventfd() noexcept
    const iovec *lane_entry_buffers(void *head, void *payload, size_t size) noexcept
    enum:
        LANE_RING_REGISTER
        LANE_RING_COMMIT_AND_FETCH

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t size)
    void *MAP_FAILED
    enum:
        MAP_ANONYMOUS
        MAP_NORESERVE
        MAP_PRIVATE
        PROT_READ
        PROT_WRITE

cdef enum:
    # user_data of the read of the inbox's eventfd; the other one is the entry.
    INBOX = 0
    # One command for the entry and one for the inbox, and as many to come.
    RING_SIZE = 4
    ENTRY_BYTES = PAGE + MAX_WRITE


cdef entry_t *_entry_new(ring_t *ring) noexcept nogil:
    """Its pages are taken from the system when the kernel first fills them."""
    cdef entry_t *entry = <entry_t *> calloc(1, sizeof(entry_t))
    cdef void *memory
    if entry == NULL:
        return NULL
    memory = mmap(NULL, ENTRY_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if memory == MAP_FAILED:
        free(entry)
        return NULL
    entry.head = <lane_ring_head *> memory
    entry.payload = <char *> memory + PAGE
    entry.inbox = &ring.inbox
    entry.queue = <uint16_t> ring.queue
    entry.index = ring.index
    ring.entry = entry
    return entry


cdef ring_t *ring_new(lane_t *lane, uint32_t queue, int *error) noexcept nogil:
    cdef ring_t *ring = <ring_t *> calloc(1, sizeof(ring_t))
    error[0] = -ENOMEM
    if ring == NULL:
        return NULL
    ring.lane = lane
    ring.index = lane.ring_count
    ring.queue = queue
    ring.inbox.eventfd = lane_eventfd()
    if ring.inbox.eventfd < 0:
        error[0] = -errno
        free(ring)
        return NULL
    error[0] = io_ring_open(&ring.io, RING_SIZE)
    if error[0] == 0 and _entry_new(ring) == NULL:
        error[0] = -ENOMEM
    if error[0]:
        ring_free(ring)
        return NULL
    lane.entries[ring.index] = ring.entry
    return ring


cdef void ring_add(ring_t *ring) noexcept nogil:
    cdef lane_t *lane = ring.lane
    lane.rings[ring.index] = ring
    lane.queue_rings[ring.queue] += 1
    store32(&lane.ring_count, ring.index + 1)


cdef void ring_free(ring_t *ring) noexcept nogil:
    io_ring_close(&ring.io)
    close(ring.inbox.eventfd)
    if ring.entry != NULL:
        ring.lane.entries[ring.index] = NULL
        # Unmapped, not given back to an allocator: the kernel may still know the place.
        munmap(ring.entry.head, ENTRY_BYTES)
        free(ring.entry)
    free(ring)


cdef void ring_wake(ring_t *ring) noexcept nogil:
    cdef uint64_t one = 1
    write(ring.inbox.eventfd, &one, sizeof(one))


cdef void _register(ring_t *ring, entry_t *entry) noexcept nogil:
    if io_ring_fuse(&ring.io, ring.lane.fd, LANE_RING_REGISTER, entry.queue, 0,
                    lane_entry_buffers(entry.head, entry.payload, MAX_WRITE),
                    <uint64_t> entry):
        ring.lost = True


cdef void _commit(ring_t *ring, entry_t *entry) noexcept nogil:
    entry.answered = False
    entry.detached = False
    if io_ring_fuse(&ring.io, ring.lane.fd, LANE_RING_COMMIT_AND_FETCH, entry.queue,
                    entry.unique, NULL, <uint64_t> entry):
        ring.lost = True


cdef void _leave(ring_t *ring) noexcept nogil:
    """Python has the entry: another ring serves the queue, unless there are enough. Where there
    is none to be had, requests wait."""
    cdef lane_t *lane = ring.lane
    cdef uint32_t queue = ring.queue
    cdef ring_t *other = NULL
    cdef int error
    pthread_mutex_lock(&lane.rings_mutex)
    lane.queue_away[queue] += 1
    if (lane.queue_rings[queue] - lane.queue_away[queue] < lane.queue_least
            and lane.queue_rings[queue] < MAX_QUEUE_RINGS and lane.ring_count < MAX_RINGS
            and not load32(&lane.stopping)):
        other = ring_new(lane, queue, &error)
    if other != NULL:
        add32(&lane.rings_alive, 1)
        if pthread_create(&other.thread, NULL, ring_main, other) == 0:
            other.running = True
            ring_add(other)
        else:
            sub32(&lane.rings_alive, 1)
            ring_free(other)
    pthread_mutex_unlock(&lane.rings_mutex)


cdef void _return(ring_t *ring) noexcept nogil:
    pthread_mutex_lock(&ring.lane.rings_mutex)
    ring.lane.queue_away[ring.queue] -= 1
    pthread_mutex_unlock(&ring.lane.rings_mutex)


cdef void _take_inbox(ring_t *ring) noexcept nogil:
    cdef entry_t *entry
    cdef entry_t *following
    while True:
        entry = <entry_t *> load_pointer(<void **> &ring.inbox.first)
        if entry == NULL or cas_pointer(<void **> &ring.inbox.first, entry, NULL):
            break
    while entry != NULL:
        following = entry.next
        _return(ring)
        _commit(ring, entry)
        entry = following


cdef void _on_request(ring_t *ring, entry_t *entry) noexcept nogil:
    cdef request_t request
    cdef fuse_in_header *head = <fuse_in_header *> entry.head.header
    cdef uint32_t payload = entry.head.payload_size
    request.head = head
    request.argument = entry.head.argument
    request.data = request.ioctl_data = entry.payload
    request.data_size = payload if payload <= MAX_WRITE else 0
    request.entry = entry
    request.block = NULL
    request.fd = -1
    request.worker = 0
    request.grow_to = request.grow_fh = 0
    entry.unique = entry.head.commit_id
    if request.data_size == payload and request_is_whole(&request, head.len):
        lane_handle(ring.lane, &ring.counters, &request, NULL)
    else:
        reply_status(&request, -EIO, &ring.counters)
    if entry.answered:
        _commit(ring, entry)
    else:
        _leave(ring)


cdef void _serve(ring_t *ring) noexcept nogil:
    cdef uint64_t user_data
    cdef int result
    cdef int error
    io_ring_read(&ring.io, ring.inbox.eventfd, &ring.inbox_count, 8, INBOX)
    _register(ring, ring.entry)
    while not load32(&ring.lane.stopping):
        error = io_ring_enter(&ring.io, 1)
        if error and error != -EINTR and error != -EAGAIN and error != -EBUSY:
            break
        while io_ring_reap(&ring.io, &user_data, &result):
            if user_data == INBOX:
                io_ring_read(&ring.io, ring.inbox.eventfd, &ring.inbox_count, 8, INBOX)
                _take_inbox(ring)
                continue
            if result == 0:
                # A reply that is ready does not wait for what this request may take.
                if io_ring_unsubmitted(&ring.io):
                    io_ring_enter(&ring.io, 0)
                _on_request(ring, <entry_t *> user_data)
                continue
            # The entry is the kernel's no more. A refused registration makes the kernel use
            # reads; anything else means that the connection is gone.
            if result != -ENOTCONN:
                add64(&ring.counters.replies_lost, 1)
            ring.lost = True
        if ring.lost:
            break


cdef void *ring_main(void *argument) noexcept nogil:
    cdef ring_t *ring = <ring_t *> argument
    cdef lane_t *lane = ring.lane
    lane_protect_thread()
    while not load32(&lane.stopping) and load32(&lane.rings_state) == RINGS_UNDECIDED:
        read(ring.inbox.eventfd, &ring.inbox_count, 8)
    if load32(&lane.rings_state) == RINGS_RUN and io_ring_enable(&ring.io) == 0:
        _serve(ring)
    sub32(&lane.rings_alive, 1)
    return NULL
