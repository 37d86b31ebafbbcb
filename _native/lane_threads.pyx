"""The lane's threads: from the kernel, from pyfuse3, and from our Python handler.

The kernel wants a reply on the clone that the request came from, so the worker's number
travels in the upper bits of the request's id through pyfuse3, and back in the reply. A
request in an entry is known by that instead.
"""

from libc.errno cimport EAGAIN, EINTR, EIO, ENOENT, ENOMEM, ENOTTY, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport read, write

from lvolfs._native.fuse_protocol cimport *
from lvolfs._native.lane_requests cimport *
from lvolfs._native.sync cimport (
    add64, load32, pthread_mutex_lock, pthread_mutex_unlock, store32, sub32,
)

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value, unsigned long, unsigned long, unsigned long)
    enum:
        PR_SET_IO_FLUSHER

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    enum:
        MSG_NOSIGNAL

cdef enum:
    # Bits of a forwarded request's id: what its reply needs, then the worker, then the
    # kernel's own number, which counts up from 0 and does not get there.
    REPLY_SHIFT = 56
    WORKER_SHIFT = KERNEL_BITS
    REPLY_PLAIN = 0
    REPLY_INIT = 1
    REPLY_OPEN = 2
    REPLY_CREATE = 3
    # In place of a worker: the number is an entry's index and 32 bits of the kernel's number.
    IN_ENTRY = 0xFF
    ENTRY_BITS = 16

cdef inline uint64_t _unique(uint64_t id) noexcept nogil:
    return id & ((<uint64_t> 1 << WORKER_SHIFT) - 1)


# -- from the kernel

cdef inline uint64_t _packed(request_t *request, uint64_t reply) noexcept nogil:
    cdef uint64_t unique = request.head.unique
    cdef uint64_t worker = request.worker
    if request.entry != NULL:
        unique = (request.entry.unique & <uint64_t> 0xFFFFFFFF) << ENTRY_BITS | request.entry.index
        worker = IN_ENTRY
    return unique | worker << WORKER_SHIFT | reply << REPLY_SHIFT


cdef entry_t *_entry_of(lane_t *lane, uint64_t id) noexcept nogil:
    """The entry that waits for a reply with this id, or NULL."""
    cdef uint64_t index = id & ((1 << ENTRY_BITS) - 1)
    cdef entry_t *entry
    if lane.entries == NULL or index >= MAX_RINGS:
        return NULL
    entry = lane.entries[index]
    if (entry == NULL or not entry.detached
            or (entry.unique ^ id >> ENTRY_BITS) & <uint64_t> 0xFFFFFFFF):
        return NULL
    return entry


cdef int _send(int fd, const void *data, size_t size) noexcept nogil:
    while send(fd, data, size, MSG_NOSIGNAL) < 0:
        if errno != EINTR:
            return -errno
    return 0


cdef void _remember_offer(lane_t *lane, fuse_init_in *init) noexcept nogil:
    cdef uint64_t flags = init.flags
    if flags & FUSE_INIT_EXT:
        flags |= <uint64_t> init.flags2 << 32
    lane.offered = flags


cdef int _send_request(int fd, request_t *request) noexcept nogil:
    """A request as read(2) would have brought it."""
    cdef iovec parts[3]
    cdef msghdr message
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    message.msg_iovlen = 1
    parts[0].iov_base = request.head
    parts[0].iov_len = request.head.len
    if request.entry != NULL:
        message.msg_iovlen = 3
        parts[0].iov_len = sizeof(fuse_in_header)
        parts[1].iov_base = request.argument
        parts[1].iov_len = request.head.len - sizeof(fuse_in_header) - request.data_size
        parts[2].iov_base = request.data
        parts[2].iov_len = request.data_size
    while sendmsg(fd, &message, MSG_NOSIGNAL) < 0:
        if errno != EINTR:
            return -errno
    return 0


cdef void _forward(lane_t *lane, counters_t *counters, request_t *request) noexcept nogil:
    """Hands a request to pyfuse3; answers it with an error if pyfuse3 is gone."""
    cdef fuse_in_header *head = request.head
    cdef uint64_t unique = head.unique
    cdef uint32_t opcode = head.opcode
    cdef uint64_t reply = REPLY_PLAIN
    cdef fuse_read_in *reading
    cdef int error
    if opcode == FUSE_INIT:
        reply = REPLY_INIT
        _remember_offer(lane, <fuse_init_in *> request.argument)
    elif opcode == FUSE_OPEN:
        reply = REPLY_OPEN
    elif opcode == FUSE_CREATE:
        reply = REPLY_CREATE
    elif opcode == FUSE_READ or opcode == FUSE_READDIR or opcode == FUSE_READDIRPLUS:
        reading = <fuse_read_in *> request.argument
        if reading.size > MAX_FORWARDED:
            reading.size = MAX_FORWARDED
    elif opcode == FUSE_WRITE:
        # Nothing that Python serves is writable.
        reply_status(request, -EIO, counters)
        return
    head.unique = _packed(request, reply)
    if request.entry != NULL:
        request.entry.detached = True
    error = _send_request(lane.pyfuse3_socket, request)
    if error and opcode != FUSE_FORGET and opcode != FUSE_BATCH_FORGET:
        head.unique = unique
        add64(&counters.errors[opcode % OPCODES], 1)
        reply_status(request, -EIO, counters)


cdef void _call_ioctl(lane_t *lane, counters_t *counters, request_t *request) noexcept nogil:
    """Hands an ioctl to our Python handler."""
    cdef char message[MESSAGE_ROOM]
    cdef call_t *call = <call_t *> message
    cdef fuse_in_header *head = request.head
    cdef fuse_ioctl_in *arg = <fuse_ioctl_in *> request.argument
    cdef int error = -ENOTTY
    # Type 'L' is ours; other programs' ioctls (FIEMAP's kin, FITRIM, terminals) end here.
    if (arg.cmd >> 8 & 0xFF) == c'L' and arg.in_size <= MAX_IOCTL and arg.out_size <= MAX_IOCTL:
        call.id = _packed(request, REPLY_PLAIN)
        call.kind = CALL_IOCTL
        call.cmd = arg.cmd
        call.inode = head.nodeid
        call.fh = arg.fh
        call.size = 0
        call.uid = head.uid
        call.gid = head.gid
        call.pid = head.pid
        call.flags = arg.flags
        call.in_size = arg.in_size
        call.out_size = arg.out_size
        memcpy(message + sizeof(call_t), request.ioctl_data, arg.in_size)
        if request.entry != NULL:
            request.entry.detached = True
        error = _send(lane.control_socket, message, sizeof(call_t) + arg.in_size)
        if error:
            error = -EIO
    if error:
        add64(&counters.errors[FUSE_IOCTL], 1)
        reply_status(request, error, counters)


cdef int _call_grow(lane_t *lane, request_t *request) noexcept nogil:
    """Parks a request, which takes its block along, and asks Python for a larger volume."""
    cdef call_t call
    cdef uint64_t id = _packed(request, REPLY_PLAIN)
    cdef parked_t *parked = <parked_t *> malloc(sizeof(parked_t))
    if parked == NULL:
        return -ENOMEM
    if request.entry != NULL:
        request.entry.detached = True
    parked.id = id
    parked.request = request[0]
    memset(&call, 0, sizeof(call))
    call.id = id
    call.kind = CALL_GROW
    call.inode = request.head.nodeid
    call.fh = request.grow_fh
    call.size = request.grow_to
    pthread_mutex_lock(&lane.parked_mutex)
    parked.next = lane.parked
    lane.parked = parked
    pthread_mutex_unlock(&lane.parked_mutex)
    if _send(lane.control_socket, &call, sizeof(call)):
        parked = _unpark(lane, id)
        if parked != NULL:
            free(parked)
            return -EIO
    return 0


cdef parked_t *_unpark(lane_t *lane, uint64_t id) noexcept nogil:
    cdef parked_t **link
    cdef parked_t *found = NULL
    pthread_mutex_lock(&lane.parked_mutex)
    link = &lane.parked
    while link[0] != NULL:
        if link[0].id == id:
            found = link[0]
            link[0] = found.next
            break
        link = &link[0].next
    pthread_mutex_unlock(&lane.parked_mutex)
    return found


cdef void lane_handle(lane_t *lane, counters_t *counters, request_t *request,
                      char **block) noexcept nogil:
    cdef uint32_t opcode = request.head.opcode
    cdef char *fresh = NULL
    cdef int outcome
    cdef int error = 0
    add64(&counters.requests[opcode % OPCODES], 1)
    if opcode == FUSE_INTERRUPT:
        return  # every request is answered soon; pyfuse3 does not listen to interrupts either
    if opcode == FUSE_IOCTL:
        _call_ioctl(lane, counters, request)
        return
    outcome = answer_request(lane.handles, request, counters)
    if outcome == NOT_NATIVE:
        _forward(lane, counters, request)
    elif outcome == MUST_GROW:
        # The parked request keeps its block: one block for each request in flight.
        if block != NULL:
            fresh = block_new()
            if fresh == NULL:
                error = -ENOMEM
        if error == 0:
            error = _call_grow(lane, request)
        if error:
            free(fresh)
            add64(&counters.errors[opcode % OPCODES], 1)
            reply_status(request, error, counters)
        elif block != NULL:
            block[0] = fresh


cdef void lane_protect_thread() noexcept nogil:
    # The kernel must not wait for a file system that lies on one of our volumes when this
    # thread needs memory. Only root may ask for that, and only root can have such a mount.
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)


cdef void _in_block(worker_t *worker, request_t *request) noexcept nogil:
    """Where a request is that this thread has read."""
    request.head = <fuse_in_header *> (worker.block + PAGE - REQUEST_HEAD)
    request.argument = <char *> (request.head + 1)
    request.ioctl_data = request.argument + sizeof(fuse_ioctl_in)
    request.data = worker.block + PAGE
    request.data_size = 0
    request.entry = NULL
    request.block = worker.block
    request.fd = worker.fd
    request.worker = worker.index
    request.grow_to = request.grow_fh = 0


cdef void *lane_worker_main(void *argument) noexcept nogil:
    cdef worker_t *worker = <worker_t *> argument
    cdef lane_t *lane = worker.lane
    cdef request_t request
    cdef call_t ended
    cdef ssize_t got
    lane_protect_thread()
    while not load32(&lane.stopping):
        _in_block(worker, &request)
        got = read(worker.fd, request.head, REQUEST_HEAD + MAX_WRITE + PAGE)
        if got < 0:
            if errno == EINTR or errno == EAGAIN or errno == ENOENT:
                continue
            break  # ENODEV: unmounted; ECONNABORTED: aborted
        if got < <ssize_t> sizeof(fuse_in_header):
            continue  # nobody to answer
        if not request_is_whole(&request, got):
            reply_status(&request, -EIO, &worker.counters)
            continue
        if got > REQUEST_HEAD:
            request.data_size = <uint32_t> (got - REQUEST_HEAD)
        lane_handle(lane, &worker.counters, &request, &worker.block)
    if sub32(&lane.alive, 1) == 1:
        memset(&ended, 0, sizeof(ended))
        ended.kind = CALL_ENDED
        _send(lane.control_socket, &ended, sizeof(ended))
    return NULL


# -- from pyfuse3

cdef void _amend_init(lane_t *lane, fuse_init_out *init) noexcept nogil:
    """Asks for what pyfuse3 does not know of, as far as the kernel offers it."""
    cdef uint64_t flags = init.flags
    flags |= lane.offered & (FUSE_ASYNC_DIO | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES
                             | FUSE_DIRECT_IO_ALLOW_MMAP | FUSE_HANDLE_KILLPRIV_V2
                             | FUSE_INIT_EXT | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS)
    if lane.ring_count:
        flags |= lane.offered & LANE_INIT_OVER_IO_URING
    # The kernel's writeback cache would break the order of writes and fsync; locks are
    # the kernel's own business on a file system of one machine.
    flags &= ~(FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS)
    init.flags = <uint32_t> flags
    init.flags2 = <uint32_t> (flags >> 32)
    init.max_write = MAX_WRITE
    init.max_pages = MAX_WRITE // PAGE
    init.max_background = lane.wanted_background
    init.congestion_threshold = lane.wanted_background * 3 // 4
    lane.accepted = flags
    lane.max_write = init.max_write
    lane.max_background = init.max_background
    # Without ALLOW_MMAP (kernels before 6.6) a file opened with FOPEN_DIRECT_IO cannot be
    # mapped shared: what programs need comes before speed.
    lane.direct_io = (flags & FUSE_DIRECT_IO_ALLOW_MMAP) != 0 and not lane.page_cache


cdef void _amend_open(lane_t *lane, fuse_open_out *opened) noexcept nogil:
    if is_native(opened.fh):
        opened.open_flags &= ~<uint32_t> FOPEN_KEEP_CACHE
        if lane.direct_io:
            opened.open_flags |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES
        else:
            opened.open_flags &= ~<uint32_t> FOPEN_DIRECT_IO


cdef void _decide_rings(lane_t *lane) noexcept nogil:
    """After the kernel has our INIT reply: rings register now, or are not needed."""
    cdef uint64_t one = 1
    cdef uint32_t i
    cdef bint run = (lane.accepted & LANE_INIT_OVER_IO_URING) != 0
    store32(&lane.rings_state, RINGS_RUN if run else RINGS_UNUSED)
    for i in range(load32(&lane.ring_count)):
        write(lane.entries[i].inbox.eventfd, &one, sizeof(one))


cdef void _reply_to(lane_t *lane, uint64_t id, char *message, uint32_t size) noexcept nogil:
    """Gives the kernel a whole reply to a request that was handed on."""
    cdef fuse_out_header *out = <fuse_out_header *> message
    cdef uint64_t worker = id >> WORKER_SHIFT & 0xFF
    cdef entry_t *entry
    if worker < lane.count:
        out.unique = _unique(id)
        send_reply(lane.workers[worker].fd, message, size, &lane.control_counters)
        return
    entry = _entry_of(lane, id) if worker == IN_ENTRY else NULL
    if entry == NULL:
        return  # nobody has asked with that id
    if size <= sizeof(fuse_out_header) + MAX_WRITE:
        entry_reply(entry, out.error, message + sizeof(fuse_out_header),
                    <uint32_t> (size - sizeof(fuse_out_header)))
    else:
        entry_reply(entry, -EIO, NULL, 0)


cdef void *lane_replies_main(void *argument) noexcept nogil:
    """Gives the kernel what pyfuse3 answers, where the request came from."""
    cdef lane_t *lane = <lane_t *> argument
    cdef char *message = block_new()
    cdef fuse_out_header *out = <fuse_out_header *> message
    cdef char *body = message + sizeof(fuse_out_header)
    cdef uint64_t reply
    cdef uint32_t size
    cdef ssize_t got
    while message != NULL:
        got = recv(lane.pyfuse3_socket, message, BLOCK_SIZE, 0)
        if got < 0 and errno == EINTR:
            continue
        if got < <ssize_t> sizeof(fuse_out_header):
            break
        if out.unique == 0:
            write(lane.fd, message, got)  # a notification; the kernel may not know the inode
            continue
        reply = out.unique >> REPLY_SHIFT
        if reply > REPLY_CREATE:
            continue  # nobody has asked with that id
        size = <uint32_t> (got - sizeof(fuse_out_header))
        if out.error == 0:
            if reply == REPLY_INIT and size >= sizeof(fuse_init_out):
                _amend_init(lane, <fuse_init_out *> body)
            elif reply == REPLY_OPEN and size >= sizeof(fuse_open_out):
                _amend_open(lane, <fuse_open_out *> body)
            elif reply == REPLY_CREATE and size >= sizeof(fuse_entry_out) + sizeof(fuse_open_out):
                _amend_open(lane, <fuse_open_out *> (body + sizeof(fuse_entry_out)))
        _reply_to(lane, out.unique, message, <uint32_t> got)
        if reply == REPLY_INIT:
            _decide_rings(lane)
    free(message)
    return NULL


# -- from our Python handler

cdef void _reply_error(lane_t *lane, uint64_t id, int error) noexcept nogil:
    cdef fuse_out_header out
    out.len = sizeof(out)
    out.error = error
    _reply_to(lane, id, <char *> &out, sizeof(out))


cdef void _finish_ioctl(lane_t *lane, answer_t *answer) noexcept nogil:
    cdef char reply[MESSAGE_ROOM]
    cdef fuse_out_header *out = <fuse_out_header *> reply
    cdef fuse_ioctl_out *result = <fuse_ioctl_out *> (reply + sizeof(fuse_out_header))
    if answer.error or answer.size > MAX_IOCTL:
        add64(&lane.control_counters.errors[FUSE_IOCTL], 1)
        _reply_error(lane, answer.id, answer.error if answer.error else -EIO)
        return
    out.len = sizeof(fuse_out_header) + sizeof(fuse_ioctl_out) + answer.size
    out.error = 0
    result.result = answer.result
    result.flags = 0
    result.in_iovs = 0
    result.out_iovs = 0
    memcpy(<char *> (result + 1), <char *> (answer + 1), answer.size)
    _reply_to(lane, answer.id, reply, out.len)


cdef void _finish_grow(lane_t *lane, answer_t *answer) noexcept nogil:
    """Carries a parked request on, in its own block."""
    cdef parked_t *parked = _unpark(lane, answer.id)
    cdef uint32_t opcode
    cdef int error = answer.error
    if parked == NULL:
        return
    opcode = parked.request.head.opcode
    if error == 0:
        if answer_request(lane.handles, &parked.request, &lane.control_counters) == MUST_GROW:
            # Somebody made it smaller in between.
            error = _call_grow(lane, &parked.request)
            if error == 0:
                free(parked)
                return
    if error:
        add64(&lane.control_counters.errors[opcode % OPCODES], 1)
        _reply_error(lane, parked.id, error)
    free(parked.request.block)
    free(parked)


cdef void *lane_control_main(void *argument) noexcept nogil:
    cdef lane_t *lane = <lane_t *> argument
    cdef char message[MESSAGE_ROOM]
    cdef answer_t *answer = <answer_t *> message
    cdef ssize_t got
    while True:
        got = recv(lane.control_socket, message, sizeof(message), 0)
        if got < 0 and errno == EINTR:
            continue
        if got < <ssize_t> sizeof(answer_t):
            break
        if answer.kind == CALL_IOCTL:
            _finish_ioctl(lane, answer)
        elif answer.kind == CALL_GROW:
            _finish_grow(lane, answer)
    return NULL
