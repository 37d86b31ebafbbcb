"""Requests on native handles: who may be asked, and the answer.

A request lies in a block of its own, so that its data are page-aligned:

    block + PAGE - 80    fuse_in_header (40 bytes) and the longest fixed argument (40)
    block + PAGE         data of a WRITE, or of the reply to a READ
    block + PAGE - 16    fuse_out_header of a reply with data

One block holds one request from its arrival to its reply.

A request that came through io_uring lies in an entry instead: headers and data apart, at
places that the kernel knows, and the reply takes the request's place.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t
from lvolfs._native.device cimport device_t
from lvolfs._native.fuse_protocol cimport fuse_in_header, lane_ring_head

cdef enum:
    PAGE = 4096
    REQUEST_HEAD = 80
    MAX_WRITE = 1048576
    BLOCK_SIZE = PAGE + MAX_WRITE + PAGE
    # Ordinary users' sockets hold 212,992 bytes: replies that pass one stay below.
    MAX_FORWARDED = 131072
    OPCODES = 64
    MAX_HANDLES = 65536
    # Bits of the kernel's request numbers, which count up from 0 and do not get there.
    KERNEL_BITS = 48
    # Upper 16 bits of a native handle; Python handles are small numbers.
    HANDLE_MARK = 0x4C56

    # Outcomes of answer_request.
    ANSWERED = 0
    NOT_NATIVE = 1
    MUST_GROW = 2


ctypedef struct handle_t:
    uint64_t fh              # 0: the slot is free
    uint32_t inside          # requests that use it now
    bint may_write
    blob_t *blob             # either a volume or snapshot ...
    device_t *device         # ... or a flat file


# Relaxed, written by one thread only; read at any time.
ctypedef struct counters_t:
    uint64_t requests[OPCODES]
    uint64_t errors[OPCODES]
    uint64_t bytes_read
    uint64_t bytes_written
    uint64_t replies_lost    # the kernel refused a reply, other than for an interrupt


# Replies of other threads to entries of one ring: they wait here for the ring's own thread.
ctypedef struct inbox_t:
    entry_t *first
    int eventfd


# One place for a request in flight through io_uring, with buffers of its own.
ctypedef struct entry_t:
    lane_ring_head *head
    char *payload            # MAX_WRITE bytes
    inbox_t *inbox
    uint64_t unique          # of the request in it
    uint32_t index           # in the lane's table
    uint16_t queue           # the kernel's, one for each possible CPU
    bint detached            # Python has it: the reply comes from another thread
    bint answered            # by its own thread: to be committed
    entry_t *next            # in the inbox


ctypedef struct request_t:
    fuse_in_header *head
    char *argument           # fixed part
    char *data               # of a WRITE, or room for a READ's
    uint32_t data_size       # bytes of it that came
    char *ioctl_data         # of an IOCTL
    entry_t *entry           # where it came through io_uring, otherwise:
    char *block
    int fd                   # the clone that it came from
    uint32_t worker          # whose that is
    uint64_t grow_to         # after MUST_GROW: bytes that the volume must have
    uint64_t grow_fh         # ... and which handle's volume


cdef inline bint is_native(uint64_t fh) noexcept nogil:
    return fh >> 48 == HANDLE_MARK

cdef char *block_new() noexcept nogil
# Whether a request of `got` bytes, a whole header at least, is as long as it says, and has all
# the arguments that are looked at here.
cdef bint request_is_whole(request_t *request, size_t got) noexcept nogil
# A reply without data; error is 0 or -errno.
cdef void reply_status(request_t *request, int error, counters_t *counters) noexcept nogil
# A reply with `size` bytes from anywhere.
cdef void reply_bytes(request_t *request, const void *data, uint32_t size,
                      counters_t *counters) noexcept nogil
# To the kernel by a descriptor: a whole message.
cdef void send_reply(int fd, const char *reply, uint32_t size, counters_t *counters) noexcept nogil
# Fills in an entry's reply and hands it to the thread that commits it. The data may be in
# place already.
cdef void entry_reply(entry_t *entry, int error, const void *data, uint32_t size) noexcept nogil
# Answers a request if it is one on a native handle. NOT_NATIVE and MUST_GROW leave it as
# it was.
cdef int answer_request(handle_t *handles, request_t *request,
                        counters_t *counters) noexcept nogil
