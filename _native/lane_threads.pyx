"""The lane's threads: from the kernel, from pyfuse3, and from our Python handler.

The kernel wants a reply on the clone that the request came from, so the worker's number
travels in the upper bits of the request's id through pyfuse3, and back in the reply.
"""

from libc.errno cimport EAGAIN, EINTR, EIO, ENOENT, ENOMEM, ENOTTY, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport read, write

from lvolfs._native.fuse_protocol cimport *
from lvolfs._native.lane_requests cimport *
from lvolfs._native.sync cimport (
    add64, load32, pthread_mutex_lock, pthread_mutex_unlock, sub32,
)

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value, unsigned long, unsigned long, unsigned long)
    enum:
        PR_SET_IO_FLUSHER

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t size, int flags)
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

cdef inline uint64_t _unique(uint64_t id) noexcept nogil:
    return id & ((<uint64_t> 1 << WORKER_SHIFT) - 1)


# -- from the kernel

cdef inline uint64_t _packed(worker_t *worker, uint64_t unique, uint64_t reply) noexcept nogil:
    return unique | <uint64_t> worker.index << WORKER_SHIFT | reply << REPLY_SHIFT


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


cdef void _forward(worker_t *worker, request_t *request) noexcept nogil:
    """Hands a request to pyfuse3; answers it with an error if pyfuse3 is gone."""
    cdef fuse_in_header *head = request_head(request)
    cdef uint64_t unique = head.unique
    cdef uint32_t opcode = head.opcode
    cdef uint64_t reply = REPLY_PLAIN
    cdef fuse_read_in *reading
    cdef int error
    if opcode == FUSE_INIT:
        reply = REPLY_INIT
        _remember_offer(worker.lane, <fuse_init_in *> (head + 1))
    elif opcode == FUSE_OPEN:
        reply = REPLY_OPEN
    elif opcode == FUSE_CREATE:
        reply = REPLY_CREATE
    elif opcode == FUSE_READ or opcode == FUSE_READDIR or opcode == FUSE_READDIRPLUS:
        reading = <fuse_read_in *> (head + 1)
        if reading.size > MAX_FORWARDED:
            reading.size = MAX_FORWARDED
    elif opcode == FUSE_WRITE:
        # Nothing that Python serves is writable.
        reply_status(request.fd, unique, -EIO, &worker.counters)
        return
    head.unique = _packed(worker, unique, reply)
    error = _send(worker.lane.pyfuse3_socket, head, head.len)
    if error and opcode != FUSE_FORGET and opcode != FUSE_BATCH_FORGET:
        add64(&worker.counters.errors[opcode % OPCODES], 1)
        reply_status(request.fd, unique, -EIO, &worker.counters)


cdef void _call_ioctl(worker_t *worker, request_t *request) noexcept nogil:
    """Hands an ioctl to our Python handler."""
    cdef char message[MESSAGE_ROOM]
    cdef call_t *call = <call_t *> message
    cdef fuse_in_header *head = request_head(request)
    cdef fuse_ioctl_in *arg = <fuse_ioctl_in *> (head + 1)
    cdef int error = -ENOTTY
    # Type 'L' is ours; other programs' ioctls (FIEMAP's kin, FITRIM, terminals) end here.
    if (arg.cmd >> 8 & 0xFF) == c'L' and arg.in_size <= MAX_IOCTL and arg.out_size <= MAX_IOCTL:
        call.id = _packed(worker, head.unique, REPLY_PLAIN)
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
        memcpy(message + sizeof(call_t), <char *> (arg + 1), arg.in_size)
        error = _send(worker.lane.control_socket, message, sizeof(call_t) + arg.in_size)
        if error:
            error = -EIO
    if error:
        add64(&worker.counters.errors[FUSE_IOCTL], 1)
        reply_status(request.fd, head.unique, error, &worker.counters)


cdef int _call_grow(lane_t *lane, uint64_t id, request_t *request) noexcept nogil:
    """Parks a request, which takes its block along, and asks Python for a larger volume."""
    cdef call_t call
    cdef parked_t *parked = <parked_t *> malloc(sizeof(parked_t))
    if parked == NULL:
        return -ENOMEM
    parked.id = id
    parked.request = request[0]
    memset(&call, 0, sizeof(call))
    call.id = id
    call.kind = CALL_GROW
    call.inode = request_head(request).nodeid
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


cdef void _handle(worker_t *worker, request_t *request) noexcept nogil:
    cdef fuse_in_header *head = request_head(request)
    cdef uint32_t opcode = head.opcode
    cdef char *fresh
    cdef int outcome
    cdef int error
    add64(&worker.counters.requests[opcode % OPCODES], 1)
    if opcode == FUSE_INTERRUPT:
        return  # every request is answered soon; pyfuse3 does not listen to interrupts either
    if opcode == FUSE_IOCTL:
        _call_ioctl(worker, request)
        return
    outcome = answer_request(worker.lane.handles, request, &worker.counters)
    if outcome == NOT_NATIVE:
        _forward(worker, request)
    elif outcome == MUST_GROW:
        # The parked request keeps its block: one block for each request in flight.
        fresh = block_new()
        error = -ENOMEM
        if fresh != NULL:
            error = _call_grow(worker.lane, _packed(worker, head.unique, REPLY_PLAIN), request)
        if error:
            free(fresh)
            add64(&worker.counters.errors[opcode % OPCODES], 1)
            reply_status(request.fd, head.unique, error, &worker.counters)
        else:
            worker.block = fresh


cdef void *lane_worker_main(void *argument) noexcept nogil:
    cdef worker_t *worker = <worker_t *> argument
    cdef lane_t *lane = worker.lane
    cdef request_t request
    cdef call_t ended
    cdef ssize_t got
    # The kernel must not wait for a file system that lies on one of our volumes when this
    # thread needs memory. Only root may ask for that, and only root can have such a mount.
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)
    while not load32(&lane.stopping):
        request.block = worker.block
        request.fd = worker.fd
        got = read(worker.fd, request_head(&request), REQUEST_HEAD + MAX_WRITE + PAGE)
        if got < 0:
            if errno == EINTR or errno == EAGAIN or errno == ENOENT:
                continue
            break  # ENODEV: unmounted; ECONNABORTED: aborted
        if got < <ssize_t> sizeof(fuse_in_header):
            continue  # nobody to answer
        if not request_is_whole(request_head(&request), got):
            reply_status(worker.fd, request_head(&request).unique, -EIO, &worker.counters)
            continue
        _handle(worker, &request)
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


cdef void *lane_replies_main(void *argument) noexcept nogil:
    """Writes what pyfuse3 answers on the clone that the request came from."""
    cdef lane_t *lane = <lane_t *> argument
    cdef char *message = block_new()
    cdef fuse_out_header *out = <fuse_out_header *> message
    cdef char *body = message + sizeof(fuse_out_header)
    cdef uint64_t reply
    cdef uint64_t index
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
        index = out.unique >> WORKER_SHIFT & 0xFF
        if index >= lane.count:
            continue  # nobody has asked with that id
        out.unique = _unique(out.unique)
        size = <uint32_t> (got - sizeof(fuse_out_header))
        if out.error == 0:
            if reply == REPLY_INIT and size >= sizeof(fuse_init_out):
                _amend_init(lane, <fuse_init_out *> body)
            elif reply == REPLY_OPEN and size >= sizeof(fuse_open_out):
                _amend_open(lane, <fuse_open_out *> body)
            elif reply == REPLY_CREATE and size >= sizeof(fuse_entry_out) + sizeof(fuse_open_out):
                _amend_open(lane, <fuse_open_out *> (body + sizeof(fuse_entry_out)))
        while write(lane.workers[index].fd, message, got) < 0:
            if errno == EINTR:
                continue
            if errno != ENOENT:
                add64(&lane.control_counters.replies_lost, 1)
            break
    free(message)
    return NULL


# -- from our Python handler

cdef void _finish_ioctl(lane_t *lane, worker_t *worker, answer_t *answer) noexcept nogil:
    cdef char reply[MESSAGE_ROOM]
    cdef fuse_out_header *out = <fuse_out_header *> reply
    cdef fuse_ioctl_out *result = <fuse_ioctl_out *> (reply + sizeof(fuse_out_header))
    cdef uint64_t unique = _unique(answer.id)
    if answer.error or answer.size > MAX_IOCTL:
        add64(&lane.control_counters.errors[FUSE_IOCTL], 1)
        reply_status(worker.fd, unique, answer.error if answer.error else -EIO,
                     &lane.control_counters)
        return
    out.len = sizeof(fuse_out_header) + sizeof(fuse_ioctl_out) + answer.size
    out.error = 0
    out.unique = unique
    result.result = answer.result
    result.flags = 0
    result.in_iovs = 0
    result.out_iovs = 0
    memcpy(<char *> (result + 1), <char *> (answer + 1), answer.size)
    while write(worker.fd, reply, out.len) < 0:
        if errno == EINTR:
            continue
        if errno != ENOENT:
            add64(&lane.control_counters.replies_lost, 1)
        break


cdef void _finish_grow(lane_t *lane, worker_t *worker, answer_t *answer) noexcept nogil:
    """Carries a parked request on, in its own block."""
    cdef parked_t *parked = _unpark(lane, answer.id)
    cdef uint64_t unique
    cdef uint32_t opcode
    cdef int error = answer.error
    if parked == NULL:
        return
    unique = request_head(&parked.request).unique
    opcode = request_head(&parked.request).opcode
    if error == 0:
        if answer_request(lane.handles, &parked.request, &lane.control_counters) == MUST_GROW:
            # Somebody made it smaller in between.
            error = _call_grow(lane, parked.id, &parked.request)
            if error == 0:
                free(parked)
                return
    if error:
        add64(&lane.control_counters.errors[opcode % OPCODES], 1)
        reply_status(worker.fd, unique, error, &lane.control_counters)
    free(parked.request.block)
    free(parked)


cdef void *lane_control_main(void *argument) noexcept nogil:
    cdef lane_t *lane = <lane_t *> argument
    cdef char message[MESSAGE_ROOM]
    cdef answer_t *answer = <answer_t *> message
    cdef worker_t *worker
    cdef ssize_t got
    while True:
        got = recv(lane.control_socket, message, sizeof(message), 0)
        if got < 0 and errno == EINTR:
            continue
        if got < <ssize_t> sizeof(answer_t):
            break
        if (answer.id >> WORKER_SHIFT & 0xFF) >= lane.count:
            continue
        worker = lane.workers[answer.id >> WORKER_SHIFT & 0xFF]
        if answer.kind == CALL_IOCTL:
            _finish_ioctl(lane, worker, answer)
        elif answer.kind == CALL_GROW:
            _finish_grow(lane, worker, answer)
    return NULL
