"""Requests on native handles: who may be asked, and the answer.

A request lies in a block of its own, so that its data are page-aligned:

    block + PAGE - 80    fuse_in_header (40 bytes) and the longest fixed argument (40)
    block + PAGE         data of a WRITE, or of the reply to a READ
    block + PAGE - 16    fuse_out_header of a reply with data

One block holds one request from its arrival to its reply.
"""

from libc.stdint cimport uint32_t, uint64_t

from lvolfs._native.cluster_map cimport blob_t
from lvolfs._native.device cimport device_t
from lvolfs._native.fuse_protocol cimport fuse_in_header

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


ctypedef struct request_t:
    char *block
    int fd                   # the clone that it came from
    uint64_t grow_to         # after MUST_GROW: bytes that the volume must have
    uint64_t grow_fh         # ... and which handle's volume


cdef inline fuse_in_header *request_head(request_t *request) noexcept nogil:
    return <fuse_in_header *> (request.block + PAGE - REQUEST_HEAD)

cdef inline bint is_native(uint64_t fh) noexcept nogil:
    return fh >> 48 == HANDLE_MARK

cdef char *block_new() noexcept nogil
# Whether a request of `got` bytes, a whole header at least, is as long as it says, and has all
# the arguments that are looked at here.
cdef bint request_is_whole(fuse_in_header *head, size_t got) noexcept nogil
# A reply without data; error is 0 or -errno.
cdef void reply_status(int fd, uint64_t unique, int error, counters_t *counters) noexcept nogil
cdef void reply_bytes(int fd, uint64_t unique, const void *data, uint32_t size,
                      counters_t *counters) noexcept nogil
# Answers a request if it is one on a native handle. NOT_NATIVE and MUST_GROW leave it as
# it was.
cdef int answer_request(handle_t *handles, request_t *request,
                        counters_t *counters) noexcept nogil
