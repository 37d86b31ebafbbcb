"""Answers the requests of the data plane without Python: no GIL, no Python object."""

from libc.errno cimport EBADF, EINTR, EINVAL, ENOENT, ENXIO, EOPNOTSUPP, EROFS, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport write

from lvolfs._native.cluster_map cimport blob_size, map_seek
from lvolfs._native.device cimport device_flush, device_pread, device_pwrite, device_zero
from lvolfs._native.fuse_protocol cimport *
from lvolfs._native.sync cimport add32, add64, cas_pointer, load64, load_pointer, sub32
from lvolfs._native.volume_io cimport blob_flush, blob_read, blob_write
from lvolfs._native.volume_space cimport blob_allocate, blob_unmap, blob_write_zeroes

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_DSYNC

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<unistd.h>" nogil:
    enum:
        SEEK_DATA
        SEEK_HOLE

cdef enum:
    # How much one COPY_FILE_RANGE does before it lets the caller ask again.
    COPY_STEP = 67108864


cdef char *block_new() noexcept nogil:
    return <char *> aligned_alloc(PAGE, BLOCK_SIZE)


cdef void send_reply(int fd, const char *reply, uint32_t size, counters_t *counters) noexcept nogil:
    while write(fd, reply, size) < 0:
        if errno == EINTR:
            continue
        if errno != ENOENT:  # ENOENT: the caller was interrupted and is gone
            add64(&counters.replies_lost, 1)
        return


cdef void _push(inbox_t *inbox, entry_t *entry) noexcept nogil:
    cdef uint64_t one = 1
    cdef entry_t *first
    while True:
        first = <entry_t *> load_pointer(<void **> &inbox.first)
        entry.next = first
        if cas_pointer(<void **> &inbox.first, first, entry):
            break
    # The thread takes all at once: who finds it empty wakes it.
    if first == NULL:
        write(inbox.eventfd, &one, sizeof(one))


cdef void entry_reply(entry_t *entry, int error, const void *data, uint32_t size) noexcept nogil:
    cdef fuse_out_header *out = <fuse_out_header *> entry.head.header
    if size and data != entry.payload:
        memcpy(entry.payload, data, size)
    memset(out, 0, sizeof(out[0]))
    out.len = <uint32_t> (sizeof(out[0]) + size)
    out.error = error
    out.unique = entry.unique
    entry.head.payload_size = size
    if entry.detached:
        _push(entry.inbox, entry)
    else:
        entry.answered = True


cdef void reply_status(request_t *request, int error, counters_t *counters) noexcept nogil:
    cdef fuse_out_header out
    if request.entry != NULL:
        entry_reply(request.entry, error, NULL, 0)
        return
    out.len = sizeof(out)
    out.error = error
    out.unique = request.head.unique
    send_reply(request.fd, <const char *> &out, sizeof(out), counters)


cdef void reply_bytes(request_t *request, const void *data, uint32_t size,
                      counters_t *counters) noexcept nogil:
    cdef char message[256]
    cdef fuse_out_header *out = <fuse_out_header *> message
    if request.entry != NULL:
        entry_reply(request.entry, 0, data, size)
        return
    out.len = sizeof(fuse_out_header) + size
    out.error = 0
    out.unique = request.head.unique
    memcpy(message + sizeof(fuse_out_header), data, size)
    send_reply(request.fd, message, out.len, counters)


cdef void _reply_data(request_t *request, uint32_t size, counters_t *counters) noexcept nogil:
    """With what lies in request.data; in a block, there is room for the header before it."""
    cdef fuse_out_header *out = <fuse_out_header *> (request.data - sizeof(fuse_out_header))
    cdef uint64_t unique = request.head.unique
    if request.entry != NULL:
        entry_reply(request.entry, 0, request.data, size)
        return
    out.len = <uint32_t> (sizeof(fuse_out_header) + size)
    out.error = 0
    out.unique = unique
    send_reply(request.fd, <const char *> out, out.len, counters)


# -- what a request has to bring along

cdef size_t _least(fuse_in_header *head) noexcept nogil:
    """Bytes of the arguments that are read natively, whoever answers."""
    cdef uint32_t opcode = head.opcode
    if opcode == FUSE_READ or opcode == FUSE_READDIR or opcode == FUSE_READDIRPLUS:
        return sizeof(fuse_read_in)
    if opcode == FUSE_WRITE:
        return sizeof(fuse_write_in)
    if opcode == FUSE_FSYNC:
        return sizeof(fuse_fsync_in)
    if opcode == FUSE_FLUSH:
        return sizeof(fuse_flush_in)
    if opcode == FUSE_FALLOCATE:
        return sizeof(fuse_fallocate_in)
    if opcode == FUSE_LSEEK:
        return sizeof(fuse_lseek_in)
    if opcode == FUSE_COPY_FILE_RANGE or opcode == LANE_FUSE_COPY_FILE_RANGE_64:
        return sizeof(fuse_copy_file_range_in)
    if opcode == FUSE_IOCTL:
        return sizeof(fuse_ioctl_in)
    if opcode == FUSE_INIT:
        return sizeof(fuse_init_in)
    return 0


cdef bint request_is_whole(request_t *request, size_t got) noexcept nogil:
    cdef fuse_in_header *head = request.head
    cdef size_t arguments = got - sizeof(fuse_in_header)
    cdef size_t rest
    cdef size_t data
    if head.len != got or got < sizeof(fuse_in_header) or head.unique >> KERNEL_BITS:
        return False
    if request.entry != NULL:
        # The fixed argument is apart from what follows it.
        if arguments < request.data_size:
            return False
        arguments -= request.data_size
        if arguments > sizeof(request.entry.head.argument):
            return False
    if arguments < _least(head):
        return False
    if head.opcode == FUSE_IOCTL:
        rest = arguments - sizeof(fuse_ioctl_in)
        data = request.data_size if request.entry != NULL else rest
        return (<fuse_ioctl_in *> request.argument).in_size <= data
    return True


# -- handles

cdef handle_t *_enter(handle_t *handles, uint64_t fh) noexcept nogil:
    """The handle, kept from being closed until _leave; NULL when it is not open."""
    cdef handle_t *handle
    if not is_native(fh):
        return NULL
    handle = &handles[fh & (MAX_HANDLES - 1)]
    add32(&handle.inside, 1)
    if load64(&handle.fh) != fh:
        sub32(&handle.inside, 1)
        return NULL
    return handle


cdef void _leave(handle_t *handle) noexcept nogil:
    sub32(&handle.inside, 1)


cdef inline uint64_t _size(handle_t *handle) noexcept nogil:
    return blob_size(handle.blob) if handle.blob != NULL else handle.device.size


cdef inline bint _can_grow(handle_t *handle) noexcept nogil:
    return handle.blob != NULL and handle.may_write


cdef int _read(handle_t *handle, void *data, uint64_t offset, uint64_t size) noexcept nogil:
    if handle.blob != NULL:
        return blob_read(handle.blob, data, offset, size)
    return device_pread(handle.device, data, size, offset)


cdef int _write(handle_t *handle, const void *data, uint64_t offset, uint64_t size) noexcept nogil:
    if handle.blob != NULL:
        return blob_write(handle.blob, data, offset, size)
    return device_pwrite(handle.device, data, size, offset)


cdef int _flush(handle_t *handle) noexcept nogil:
    if handle.blob != NULL:
        return blob_flush(handle.blob)
    return device_flush(handle.device)


# -- one function a request; each returns an outcome, or replies by itself

cdef int _on_read(handle_t *handle, request_t *request, counters_t *counters) noexcept nogil:
    cdef fuse_read_in *arg = <fuse_read_in *> request.argument
    cdef uint64_t offset = arg.offset
    cdef uint64_t size = arg.size
    cdef uint64_t end = _size(handle)
    cdef int error = 0
    if size > MAX_WRITE:
        size = MAX_WRITE
    if offset >= end:
        size = 0
    elif size > end - offset:
        size = end - offset
    if size:
        error = _read(handle, request.data, offset, size)
    if error:
        add64(&counters.errors[FUSE_READ], 1)
        reply_status(request, error, counters)
        return ANSWERED
    add64(&counters.bytes_read, size)
    _reply_data(request, <uint32_t> size, counters)
    return ANSWERED


cdef int _on_write(handle_t *handle, request_t *request, counters_t *counters) noexcept nogil:
    cdef fuse_write_in *arg = <fuse_write_in *> request.argument
    cdef uint64_t offset = arg.offset
    cdef uint64_t size = arg.size
    cdef fuse_write_out out
    cdef int error
    if request.data_size != size or size > MAX_WRITE:
        error = -EINVAL
    elif not handle.may_write:
        error = -EROFS
    elif size == 0:
        error = 0
    elif offset + size > _size(handle) and _can_grow(handle) and not arg.write_flags & FUSE_WRITE_CACHE:
        request.grow_to = offset + size
        request.grow_fh = arg.fh
        return MUST_GROW
    else:
        error = _write(handle, request.data, offset, size)
        # The kernel does not always send an FSYNC after a synchronous direct write.
        if error == 0 and arg.flags & O_DSYNC:
            error = _flush(handle)
    if error:
        add64(&counters.errors[FUSE_WRITE], 1)
        reply_status(request, error, counters)
        return ANSWERED
    add64(&counters.bytes_written, size)
    out.size = <uint32_t> size
    out.padding = 0
    reply_bytes(request, &out, sizeof(out), counters)
    return ANSWERED


cdef int _fallocate(handle_t *handle, uint32_t mode, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t end = _size(handle)
    cdef uint64_t inside = 0
    if offset < end:
        inside = length if length < end - offset else end - offset
    if mode & FALLOC_FL_PUNCH_HOLE:
        if inside == 0:
            return 0
        if handle.blob != NULL:
            return blob_unmap(handle.blob, offset, inside)
        return device_zero(handle.device, offset, inside)
    if inside < length:
        # KEEP_SIZE past the end: a volume has no space behind its last cluster.
        return -EOPNOTSUPP
    if mode & FALLOC_FL_ZERO_RANGE:
        if handle.blob != NULL:
            return blob_write_zeroes(handle.blob, offset, length)
        return device_zero(handle.device, offset, length)
    return blob_allocate(handle.blob, offset, length) if handle.blob != NULL else 0


cdef int _on_fallocate(handle_t *handle, request_t *request, counters_t *counters) noexcept nogil:
    cdef fuse_fallocate_in *arg = <fuse_fallocate_in *> request.argument
    cdef int error
    if not handle.may_write:
        error = -EROFS
    elif arg.mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE):
        error = -EOPNOTSUPP
    elif (not arg.mode & FALLOC_FL_KEEP_SIZE and _can_grow(handle)
            and arg.offset + arg.length > _size(handle)):
        request.grow_to = arg.offset + arg.length
        request.grow_fh = arg.fh
        return MUST_GROW
    else:
        error = _fallocate(handle, arg.mode, arg.offset, arg.length)
    if error:
        add64(&counters.errors[FUSE_FALLOCATE], 1)
    reply_status(request, error, counters)
    return ANSWERED


cdef int _on_lseek(handle_t *handle, request_t *request, counters_t *counters) noexcept nogil:
    cdef fuse_lseek_in *arg = <fuse_lseek_in *> request.argument
    cdef fuse_lseek_out out
    cdef long found
    if arg.whence != SEEK_DATA and arg.whence != SEEK_HOLE:
        found = -EINVAL
    elif arg.offset >= _size(handle):
        found = -ENXIO
    elif handle.blob != NULL:
        found = map_seek(handle.blob, arg.offset, arg.whence == SEEK_DATA)
    else:
        found = arg.offset if arg.whence == SEEK_DATA else handle.device.size
    if found < 0:
        reply_status(request, <int> found, counters)
        return ANSWERED
    out.offset = found
    reply_bytes(request, &out, sizeof(out), counters)
    return ANSWERED


cdef long _copy(handle_t *source, uint64_t source_offset, handle_t *target, uint64_t target_offset,
                uint64_t length, char *buffer) noexcept nogil:
    """Copies at most `length` bytes, holes as holes; how many, or -errno if none."""
    cdef uint64_t done = 0
    cdef uint64_t step
    cdef long data
    cdef int error = 0
    while done < length:
        step = length - done if length - done < MAX_WRITE else MAX_WRITE
        data = source_offset + done
        if source.blob != NULL:
            data = map_seek(source.blob, source_offset + done, True)
            if data == -ENXIO:
                data = source_offset + length
        if data < 0:
            error = <int> data
        elif <uint64_t> data > source_offset + done:
            step = <uint64_t> data - source_offset - done
            if step > length - done:
                step = length - done
            error = _fallocate(target, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               target_offset + done, step)
        else:
            error = _read(source, buffer, source_offset + done, step)
            if error == 0:
                error = _write(target, buffer, target_offset + done, step)
        if error:
            return done if done else error
        done += step
    return done


cdef int _on_copy(handle_t *source, handle_t *target, request_t *request,
                  counters_t *counters) noexcept nogil:
    cdef fuse_copy_file_range_in *arg = <fuse_copy_file_range_in *> request.argument
    cdef uint32_t opcode = request.head.opcode
    cdef fuse_copy_file_range_in copy = arg[0]
    cdef uint64_t end = _size(source)
    cdef uint64_t length = 0
    cdef fuse_write_out narrow
    cdef lane_copy_file_range_out wide
    cdef long copied
    if copy.off_in < end:
        length = copy.len if copy.len < end - copy.off_in else end - copy.off_in
    if length > COPY_STEP:
        length = COPY_STEP
    if not target.may_write:
        copied = -EROFS
    elif copy.flags:
        copied = -EINVAL
    elif length == 0:
        copied = 0
    elif copy.off_out + length > _size(target) and _can_grow(target):
        request.grow_to = copy.off_out + length
        request.grow_fh = copy.fh_out
        return MUST_GROW
    else:
        copied = _copy(source, copy.off_in, target, copy.off_out, length, request.data)
    if copied < 0:
        add64(&counters.errors[FUSE_COPY_FILE_RANGE], 1)
        reply_status(request, <int> copied, counters)
        return ANSWERED
    add64(&counters.bytes_read, copied)
    add64(&counters.bytes_written, copied)
    if opcode == LANE_FUSE_COPY_FILE_RANGE_64:
        wide.bytes_copied = copied
        reply_bytes(request, &wide, sizeof(wide), counters)
    else:
        narrow.size = <uint32_t> copied
        narrow.padding = 0
        reply_bytes(request, &narrow, sizeof(narrow), counters)
    return ANSWERED


cdef int _answer_copy(handle_t *handles, request_t *request, counters_t *counters) noexcept nogil:
    cdef fuse_copy_file_range_in *arg = <fuse_copy_file_range_in *> request.argument
    cdef handle_t *source = _enter(handles, arg.fh_in)
    cdef handle_t *target = _enter(handles, arg.fh_out)
    cdef int outcome = ANSWERED
    if source != NULL and target != NULL:
        outcome = _on_copy(source, target, request, counters)
    else:
        # The kernel then copies with reads and writes.
        reply_status(request, -EOPNOTSUPP, counters)
    if source != NULL:
        _leave(source)
    if target != NULL:
        _leave(target)
    return outcome


cdef int answer_request(handle_t *handles, request_t *request,
                        counters_t *counters) noexcept nogil:
    cdef fuse_in_header *head = request.head
    cdef uint32_t opcode = head.opcode
    # All arguments with a handle, other than COPY_FILE_RANGE's, begin with it.
    cdef uint64_t fh
    cdef handle_t *handle
    cdef int outcome = ANSWERED
    cdef int error
    if opcode == FUSE_COPY_FILE_RANGE or opcode == LANE_FUSE_COPY_FILE_RANGE_64:
        return _answer_copy(handles, request, counters)
    if (opcode != FUSE_READ and opcode != FUSE_WRITE and opcode != FUSE_FSYNC
            and opcode != FUSE_FLUSH and opcode != FUSE_FALLOCATE and opcode != FUSE_LSEEK):
        return NOT_NATIVE
    fh = (<uint64_t *> request.argument)[0]
    if not is_native(fh):
        if opcode == FUSE_FALLOCATE or opcode == FUSE_LSEEK:
            # pyfuse3 would say ENOSYS, which the kernel remembers for the whole mount.
            reply_status(request, -EOPNOTSUPP, counters)
            return ANSWERED
        return NOT_NATIVE
    handle = _enter(handles, fh)
    if handle == NULL:
        reply_status(request, -EBADF, counters)
        return ANSWERED
    if opcode == FUSE_READ:
        outcome = _on_read(handle, request, counters)
    elif opcode == FUSE_WRITE:
        outcome = _on_write(handle, request, counters)
    elif opcode == FUSE_FALLOCATE:
        outcome = _on_fallocate(handle, request, counters)
    elif opcode == FUSE_LSEEK:
        outcome = _on_lseek(handle, request, counters)
    else:
        error = 0
        if opcode == FUSE_FSYNC:
            error = _flush(handle)
        elif handle.blob != NULL and handle.blob.failed:
            # FLUSH is close(2): the last chance to tell that a write was lost.
            error = -(<int> handle.blob.failed)
        if error:
            add64(&counters.errors[opcode], 1)
        reply_status(request, error, counters)
    _leave(handle)
    return outcome
