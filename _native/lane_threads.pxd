"""What the lane's threads share, and what they and Python say to each other."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from lvolfs._native.lane_requests cimport counters_t, entry_t, handle_t, request_t
from lvolfs._native.sync cimport pthread_mutex_t

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t

cdef enum:
    MAX_WORKERS = 64
    # All rings, and those of one queue: more than a few only while Python has their requests.
    MAX_RINGS = 16384
    MAX_QUEUE_RINGS = 64
    # Whether requests come through io_uring: known when INIT is answered.
    RINGS_UNDECIDED = 0
    RINGS_RUN = 1
    RINGS_UNUSED = 2
    # Kinds of call to Python.
    CALL_IOCTL = 1
    CALL_GROW = 2
    CALL_ENDED = 3
    # Longest argument of a restricted ioctl: 14 bits of _IOC_SIZE.
    MAX_IOCTL = 16384
    # Room for either of the messages below, or an ioctl's reply, with its data.
    MESSAGE_ROOM = MAX_IOCTL + 128


# lane -> Python, followed by in_size bytes of an ioctl's argument.
ctypedef struct call_t:
    uint64_t id
    uint32_t kind
    uint32_t cmd
    uint64_t inode
    uint64_t fh
    uint64_t size        # grow: bytes that the volume must have
    uint32_t uid
    uint32_t gid
    uint32_t pid
    uint32_t flags       # FUSE_IOCTL_*
    uint32_t in_size
    uint32_t out_size


# Python -> lane, followed by size bytes of an ioctl's result.
ctypedef struct answer_t:
    uint64_t id
    uint32_t kind
    int32_t error        # 0 or -errno
    int32_t result       # what ioctl(2) returns
    uint32_t size


# A request that waits until Python has made its volume larger.
ctypedef struct parked_t:
    parked_t *next
    uint64_t id
    request_t request


ctypedef struct worker_t:
    lane_t *lane
    int fd               # its own clone of /dev/fuse
    uint32_t index
    pthread_t thread
    bint running
    char *block
    counters_t counters


ctypedef struct lane_t:
    int fd
    int pyfuse3_socket   # our end; the other one is pyfuse3's "/dev/fuse"
    int control_socket   # our end; the other one is Python's
    uint32_t count
    worker_t *workers[MAX_WORKERS]
    uint32_t alive       # workers that still read
    uint32_t stopping
    pthread_mutex_t rings_mutex   # held to add a ring, and for the counts of queues
    uint32_t ring_count
    uint32_t rings_alive
    uint32_t rings_state
    uint32_t queue_least     # rings that each queue has, other than those whose entry Python has
    uint32_t *queue_rings    # by queue
    uint32_t *queue_away     # by queue: those whose entry Python has
    void **rings             # ring_t by number; NULL without rings
    entry_t **entries        # by the number of their ring
    pthread_t replies_thread
    pthread_t control_thread
    counters_t control_counters
    pthread_mutex_t parked_mutex
    parked_t *parked
    handle_t *handles
    uint64_t offered     # INIT flags of the kernel
    uint64_t accepted    # INIT flags of our reply
    uint32_t max_write
    uint32_t max_background
    uint32_t wanted_background
    bint page_cache      # asked for: no FOPEN_DIRECT_IO
    bint direct_io       # volumes are opened with FOPEN_DIRECT_IO


# Makes a native thread fit to serve file systems that lie on our volumes.
cdef void lane_protect_thread() noexcept nogil
# Answers a request or hands it on. `block` points to the reader's block, which a request that
# has to wait takes along (another one takes its place); NULL for one in an entry.
cdef void lane_handle(lane_t *lane, counters_t *counters, request_t *request,
                      char **block) noexcept nogil
# Reads requests until the connection ends; argument: a worker_t.
cdef void *lane_worker_main(void *argument) noexcept nogil
# Writes pyfuse3's replies to the kernel until the socket is shut down; a lane_t.
cdef void *lane_replies_main(void *argument) noexcept nogil
# Writes our Python handler's answers to the kernel until its socket is shut down; a lane_t.
cdef void *lane_control_main(void *argument) noexcept nogil
