"""Requests to a Network Block Device server, without the GIL.

A server may be slow, hung or gone. Whoever waits for it looks around every few milliseconds: when
its job is cancelled, or the server has been silent for too long, the connection is closed under
the request. Nothing else can take a request back whose buffer libnbd still reads or fills.

Requests of several threads are under way together. One of the threads waits for the socket, and
takes in the replies to all of them; the others wait for that one. If each waited for the socket,
it could do so for a reply that another one has just taken in.
"""

import os

from libc.errno cimport EBADF, EINVAL, EIO, ENOMEM, ETIMEDOUT, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from lvolfs._native.control cimport Control
from lvolfs._native.sync cimport (
    cond_init_timed, cond_wait_for, load32, pthread_cond_broadcast, pthread_cond_destroy,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    seconds_now,
)

cdef extern from "<errno.h>" nogil:
    int ECANCELED

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN
    short POLLOUT
    int poll(pollfd *fds, unsigned long count, int milliseconds) noexcept

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_CLOEXEC
    int EFD_NONBLOCK
    int eventfd(unsigned int value, int flags) noexcept
    int eventfd_read(int fd, uint64_t *value) noexcept
    int eventfd_write(int fd, uint64_t value) noexcept

cdef extern from "<unistd.h>" nogil:
    int close(int fd) noexcept

cdef extern from "libnbd.h" nogil:
    """
    static const nbd_completion_callback lvolfs_nbd_no_callback;
    """
    ctypedef struct nbd_completion_callback:
        pass
    const nbd_completion_callback lvolfs_nbd_no_callback
    int LIBNBD_SIZE_MAXIMUM
    unsigned int LIBNBD_AIO_DIRECTION_READ
    unsigned int LIBNBD_AIO_DIRECTION_WRITE
    nbd_handle *nbd_create() noexcept
    void nbd_close(nbd_handle *h) noexcept
    const char *nbd_get_error() noexcept
    int nbd_get_errno() noexcept
    int64_t nbd_get_size(nbd_handle *h) noexcept
    int64_t nbd_get_block_size(nbd_handle *h, int size_type) noexcept
    int nbd_is_read_only(nbd_handle *h) noexcept
    int nbd_can_zero(nbd_handle *h) noexcept
    int nbd_can_flush(nbd_handle *h) noexcept
    int nbd_poll(nbd_handle *h, int milliseconds) noexcept
    int nbd_aio_connect_uri(nbd_handle *h, const char *uri) noexcept
    int nbd_aio_get_fd(nbd_handle *h) noexcept
    unsigned int nbd_aio_get_direction(nbd_handle *h) noexcept
    int nbd_aio_is_connecting(nbd_handle *h) noexcept
    int nbd_aio_is_ready(nbd_handle *h) noexcept
    int nbd_aio_is_closed(nbd_handle *h) noexcept
    int nbd_aio_is_dead(nbd_handle *h) noexcept
    int nbd_aio_disconnect(nbd_handle *h, unsigned int flags) noexcept
    int nbd_aio_command_completed(nbd_handle *h, uint64_t cookie) noexcept
    int64_t nbd_aio_pread(nbd_handle *h, void *buf, size_t count, uint64_t offset,
                          nbd_completion_callback done, unsigned int flags) noexcept
    int64_t nbd_aio_pwrite(nbd_handle *h, const void *buf, size_t count, uint64_t offset,
                           nbd_completion_callback done, unsigned int flags) noexcept
    int64_t nbd_aio_zero(nbd_handle *h, uint64_t count, uint64_t offset,
                         nbd_completion_callback done, unsigned int flags) noexcept
    int64_t nbd_aio_flush(nbd_handle *h, nbd_completion_callback done,
                          unsigned int flags) noexcept

cdef enum:
    # What every server takes by the protocol's rule when it announces nothing.
    MAX_REQUEST = 32 << 20
    ZEROES = 1 << 20
    POLL_MILLISECONDS = 50
    ASK_READ = 0
    ASK_WRITE = 1
    ASK_ZERO = 2
    ASK_FLUSH = 3

# A cancelled request of a server that answers is let finish.
cdef double CANCEL_GRACE = 1.0
cdef double GOODBYE_SECONDS = 2.0

CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 120.0


cdef int last_errno() noexcept nogil:
    cdef int code = nbd_get_errno()
    return -code if code > 0 else -EIO


cdef int64_t submit(nbd_handle *h, int kind, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    if kind == ASK_READ:
        return nbd_aio_pread(h, buf, length, offset, lvolfs_nbd_no_callback, 0)
    if kind == ASK_WRITE:
        return nbd_aio_pwrite(h, buf, length, offset, lvolfs_nbd_no_callback, 0)
    if kind == ASK_ZERO:
        return nbd_aio_zero(h, length, offset, lvolfs_nbd_no_callback, 0)
    return nbd_aio_flush(h, lvolfs_nbd_no_callback, 0)


cdef void abandon(nbd_target_t *target, int error) noexcept nogil:
    """With the lock held: ends the connection, and with it every request that is under way."""
    nbd_close(target.handle)
    target.handle = NULL
    target.error = error


cdef int wait_for_replies(nbd_target_t *target) noexcept nogil:
    """With the lock held, but not while it waits: until something may have happened, or for a
    moment. 0, or -errno when the connection broke."""
    cdef pollfd[2] fds
    cdef unsigned int direction
    cdef uint64_t wakes
    cdef int rc = 0
    if target.polling:
        cond_wait_for(&target.polled, &target.lock, POLL_MILLISECONDS / 1000.0)
        return 0
    direction = nbd_aio_get_direction(target.handle)
    fds[0].fd = nbd_aio_get_fd(target.handle)
    fds[0].events = ((POLLIN if direction & LIBNBD_AIO_DIRECTION_READ else 0)
                     | (POLLOUT if direction & LIBNBD_AIO_DIRECTION_WRITE else 0))
    fds[1].fd = target.wake
    fds[1].events = POLLIN
    target.polling = True
    pthread_mutex_unlock(&target.lock)
    poll(fds, 2, POLL_MILLISECONDS)
    pthread_mutex_lock(&target.lock)
    target.polling = False
    eventfd_read(target.wake, &wakes)
    if target.handle != NULL and nbd_poll(target.handle, 0) < 0:
        rc = last_errno()
    pthread_cond_broadcast(&target.polled)
    return rc


cdef int progress(nbd_target_t *target, uint64_t cookie, double begun, double *cancelled) noexcept nogil:
    """With the lock held: 1 when the request is done, 0 to ask again, or -errno."""
    cdef int done, code
    cdef double now
    done = nbd_aio_command_completed(target.handle, cookie)
    if done != 0:
        return 1 if done > 0 else last_errno()
    now = seconds_now()
    if cancelled[0] == 0 and target.cancelled != NULL and load32(target.cancelled):
        cancelled[0] = now
    if cancelled[0] != 0 and now - cancelled[0] > CANCEL_GRACE:
        abandon(target, -ECANCELED)
        return -ECANCELED
    if now - begun > target.patience:
        abandon(target, -ETIMEDOUT)
        return -ETIMEDOUT
    code = wait_for_replies(target)
    if code < 0:
        done = nbd_aio_command_completed(target.handle, cookie)
        if done > 0:
            return 1
        if done == 0:
            abandon(target, code)
        return code
    return 0 if target.handle != NULL else target.error


cdef int ask(nbd_target_t *target, int kind, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    """One request from beginning to end; other threads' come in between."""
    cdef int64_t cookie
    cdef double begun = seconds_now(), cancelled = 0
    cdef int rc = 0
    pthread_mutex_lock(&target.lock)
    if target.handle == NULL:
        rc = target.error
    else:
        cookie = submit(target.handle, kind, buf, offset, length)
        if cookie < 0:
            rc = last_errno()
        elif target.polling and nbd_aio_get_direction(target.handle) & LIBNBD_AIO_DIRECTION_WRITE:
            # What the socket has not taken yet is nothing that the other thread waits for.
            eventfd_write(target.wake, 1)
        while rc == 0:
            rc = progress(target, cookie, begun, &cancelled)
    pthread_mutex_unlock(&target.lock)
    return 0 if rc > 0 else rc


cdef int ask_in_parts(nbd_target_t *target, int kind, void *buf, uint64_t offset,
                      uint64_t length) noexcept nogil:
    cdef uint64_t done = 0, part
    cdef int rc
    while done < length:
        part = min(length - done, <uint64_t> target.max_request)
        rc = ask(target, kind, NULL if buf == NULL else <char *> buf + done, offset + done, part)
        if rc < 0:
            return rc
        done += part
    return 0


cdef int nbd_target_read(nbd_target_t *target, void *buf, uint64_t offset, uint64_t length) noexcept nogil:
    return ask_in_parts(target, ASK_READ, buf, offset, length)


cdef int nbd_target_write(nbd_target_t *target, const void *buf, uint64_t offset,
                          uint64_t length) noexcept nogil:
    return ask_in_parts(target, ASK_WRITE, <void *> buf, offset, length)


cdef int nbd_target_zero(nbd_target_t *target, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t done = 0, part
    cdef void *zeros
    cdef int rc = 0
    if target.can_zero:
        return ask_in_parts(target, ASK_ZERO, NULL, offset, length)
    zeros = calloc(1, ZEROES)
    if zeros == NULL:
        return -ENOMEM
    while done < length and rc == 0:
        part = min(length - done, <uint64_t> ZEROES)
        rc = nbd_target_write(target, zeros, offset + done, part)
        done += part
    free(zeros)
    return rc


cdef int nbd_target_flush(nbd_target_t *target) noexcept nogil:
    return ask(target, ASK_FLUSH, NULL, 0, 0) if target.can_flush else 0


cdef int connect(nbd_handle *h, const char *uri, double seconds) noexcept nogil:
    cdef double begun = seconds_now()
    if nbd_aio_connect_uri(h, uri) < 0:
        return last_errno()
    while nbd_aio_is_connecting(h) > 0:
        if seconds_now() - begun > seconds:
            return -ETIMEDOUT
        if nbd_poll(h, POLL_MILLISECONDS) < 0:
            return last_errno()
    return 0 if nbd_aio_is_ready(h) > 0 else last_errno()


cdef void disconnect(nbd_handle *h) noexcept nogil:
    """Says goodbye to a server that listens, and leaves one that does not."""
    cdef double begun = seconds_now()
    if nbd_aio_disconnect(h, 0) == 0:
        while (nbd_aio_is_closed(h) == 0 and nbd_aio_is_dead(h) == 0
                and seconds_now() - begun < GOODBYE_SECONDS):
            if nbd_poll(h, POLL_MILLISECONDS) < 0:
                break
    nbd_close(h)


cdef class NbdTarget:
    def __cinit__(self, str uri not None, *, double patience=PATIENCE_SECONDS,
                  double connect_seconds=CONNECT_SECONDS):
        cdef bytes text = os.fsencode(uri)
        cdef const char *raw_uri = text
        cdef int rc
        cdef int64_t limit
        memset(&self.raw, 0, sizeof(nbd_target_t))
        pthread_mutex_init(&self.raw.lock, NULL)
        cond_init_timed(&self.raw.polled)
        self.raw.wake = -1
        self.raw.error = -EBADF
        self.raw.patience = patience
        self.uri = uri
        if b"\0" in text:
            raise OSError(EINVAL, f"NBD URI {uri!r} has a NUL character in it")
        self.raw.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.raw.wake < 0:
            raise OSError(errno, f"NBD server {uri}: {os.strerror(errno)}")
        self.raw.handle = nbd_create()
        if self.raw.handle == NULL:
            raise self._error("cannot be opened")
        with nogil:
            rc = connect(self.raw.handle, raw_uri, connect_seconds)
        if rc == -ETIMEDOUT:
            raise OSError(
                ETIMEDOUT, f"NBD server {uri} has not answered for {connect_seconds:g} s"
            )
        if rc < 0:
            raise self._error("cannot be reached")
        limit = nbd_get_size(self.raw.handle)
        if limit < 0:
            raise self._error("does not tell its size")
        self.raw.size = <uint64_t> limit
        self._read_only = nbd_is_read_only(self.raw.handle) != 0
        self.raw.can_zero = nbd_can_zero(self.raw.handle) > 0
        self.raw.can_flush = nbd_can_flush(self.raw.handle) > 0
        limit = nbd_get_block_size(self.raw.handle, LIBNBD_SIZE_MAXIMUM)
        self.raw.max_request = <unsigned int> limit if 0 < limit < MAX_REQUEST else MAX_REQUEST

    def __dealloc__(self):
        if self.raw.handle != NULL:
            with nogil:
                nbd_close(self.raw.handle)
            self.raw.handle = NULL
        if self.raw.wake >= 0:
            close(self.raw.wake)
        pthread_cond_destroy(&self.raw.polled)
        pthread_mutex_destroy(&self.raw.lock)

    cdef watch(self, Control control):
        self._control = control
        self.raw.cancelled = &control.raw.cancelled

    def _error(self, str what):
        cdef const char *text = nbd_get_error()
        cdef int code = nbd_get_errno()
        detail = text.decode("utf-8", "replace") if text != NULL else "unknown error"
        return OSError(code if code > 0 else EIO, f"NBD server {self.uri} {what}: {detail}")

    def _open(self):
        if self.raw.handle == NULL:
            raise OSError(-self.raw.error, f"NBD connection to {self.uri} is closed")

    @property
    def size(self):
        return self.raw.size

    @property
    def read_only(self):
        return self._read_only

    def close(self):
        cdef nbd_handle *handle
        with nogil:
            pthread_mutex_lock(&self.raw.lock)
            handle = self.raw.handle
            self.raw.handle = NULL
            if handle != NULL:
                disconnect(handle)
            pthread_mutex_unlock(&self.raw.lock)
