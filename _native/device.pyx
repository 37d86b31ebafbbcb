"""Where a store's bytes are: a regular file or a block device."""

import errno
import os
import stat

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EDQUOT, EINTR, EIO, ENOSPC, ENXIO, errno as c_errno
from libc.stdint cimport uint8_t, uint64_t
from posix.types cimport off_t

from lvolfs._native.device_faults cimport (
    FAULT_FLUSH,
    FAULT_READ,
    FAULT_WRITE,
    device_fault,
    device_fault_t,
    device_faults_add,
    device_faults_clear,
    device_faults_free,
    device_faults_new,
    device_faults_t,
)
from lvolfs._native.sync cimport add64, cas_pointer, load32, load64, store32
from lvolfs._native.write_log cimport (
    LOG_DISCARD,
    LOG_FLUSH,
    LOG_MARK,
    LOG_WRITE,
    LOG_ZERO,
    write_log_append,
    write_log_close,
    write_log_lock,
    write_log_open,
    write_log_unlock,
)
from lvolfs._native.write_piece cimport is_on_ext4, write_piece


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *buf, size_t count, off_t offset)
    ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
    int fdatasync(int fd)
    off_t lseek(int fd, off_t offset, int whence)
    enum:
        SEEK_DATA
        SEEK_END

cdef extern from "<fcntl.h>" nogil:
    int fallocate(int fd, int mode, off_t offset, off_t length)
    enum:
        FALLOC_FL_KEEP_SIZE
        FALLOC_FL_PUNCH_HOLE
        FALLOC_FL_ZERO_RANGE
        SYNC_FILE_RANGE_WRITE
    int sync_file_range(int fd, off_t offset, off_t length, unsigned int flags)

cdef extern from "<linux/fs.h>" nogil:
    enum:
        BLKDISCARD
        BLKGETSIZE64
        BLKSSZGET

cdef extern from "<sys/statvfs.h>" nogil:
    struct statvfs:
        unsigned long f_frsize
        uint64_t f_bavail
    int fstatvfs(int fd, statvfs *found)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, void *argument)

# Requests to the kernel are cut to this, so that one never exceeds what read(2) can report.
cdef enum:
    PIECE = 1 << 30
    PAGE = 4096
    ZEROES = 1 << 16
    # Shorter writes into a hole stay sparse.
    RESERVE_FROM = 1 << 16

cdef extern from *:
    """
    static const unsigned char device_zeroes[1 << 16];
    """
    const unsigned char device_zeroes[65536]


cdef int read_all(device_t *dev, void *buf, uint64_t length, uint64_t offset) noexcept nogil:
    cdef uint8_t *at = <uint8_t *> buf
    cdef uint64_t piece = PIECE
    cdef ssize_t got
    cdef int planted = 0
    if dev.faults != NULL:
        planted = device_fault(dev.faults, FAULT_READ, offset, length, &piece)
        if planted and piece == 0:
            return planted
        piece = piece if piece else <uint64_t> PIECE
    if dev.reader != NULL:
        return dev.reader(dev.reader_context, buf, length, offset)
    while length:
        got = pread(dev.fd, at, min(length, piece), <off_t> offset)
        if got < 0:
            if c_errno == EINTR:
                continue
            return -c_errno
        if got == 0:
            return -EIO
        if planted:
            return planted
        at += got
        offset += <uint64_t> got
        length -= <uint64_t> got
        piece = PIECE
    return 0


cdef int count_error(device_t *dev, int rc) noexcept nogil:
    if rc:
        add64(&dev.errors, 1)
        if rc == -ENOSPC:
            add64(&dev.no_space, 1)
    return rc


cdef int count(device_t *dev, uint64_t *ops, uint64_t *bytes, int rc, uint64_t length) noexcept nogil:
    if rc == 0:
        add64(ops, 1)
        add64(bytes, length)
    return count_error(dev, rc)


cdef int device_pread(device_t *dev, void *buf, uint64_t length, uint64_t offset) noexcept nogil:
    cdef int rc = read_all(dev, buf, length, offset)
    return count(dev, &dev.reads, &dev.bytes_read, rc, length)


cdef uint64_t size_now(device_t *dev) noexcept nogil:
    """Of the file or device itself; as it was when that cannot be told."""
    cdef uint64_t size = 0
    cdef off_t end
    if dev.is_block:
        return size if ioctl(dev.fd, BLKGETSIZE64, &size) == 0 else dev.size
    end = lseek(dev.fd, 0, SEEK_END)
    return <uint64_t> end if end >= 0 else dev.size


cdef uint64_t lost_bytes(device_t *dev) noexcept nogil:
    cdef uint64_t needed = dev.needed if dev.needed else dev.size
    cdef uint64_t now = size_now(dev)
    return needed - now if now < needed else 0


cdef inline uint64_t piece_from(const device_t *dev, uint64_t offset) noexcept nogil:
    # Up to the next multiple: only pieces that are aligned become folios of their length.
    return dev.write_piece - offset % dev.write_piece


cdef int write_all(
    device_t *dev, const void *buf, uint64_t length, uint64_t offset
) noexcept nogil:
    cdef const uint8_t *at = <const uint8_t *> buf
    cdef uint64_t piece = piece_from(dev, offset)
    cdef ssize_t put
    cdef int error
    cdef int planted = 0
    # A regular file would grow silently; nothing of a store lies past its end.
    if offset > dev.size or length > dev.size - offset:
        return -EIO
    if dev.faults != NULL:
        planted = device_fault(dev.faults, FAULT_WRITE, offset, length, &piece)
        if planted and piece == 0:
            return planted
        piece = piece if piece else piece_from(dev, offset)
    while length:
        put = pwrite(dev.fd, at, min(length, piece), <off_t> offset)
        if put < 0:
            error = c_errno
            if error == EINTR:
                continue
            if error == EDQUOT:
                error = ENOSPC
            # A block device says ENOSPC to what lies past its end.
            return -ENXIO if error == ENOSPC and lost_bytes(dev) else -error
        if put == 0:
            return -EIO
        if planted:
            return planted
        at += put
        offset += <uint64_t> put
        length -= <uint64_t> put
        piece = piece_from(dev, offset)
    return 0


cdef int device_pwrite(
    device_t *dev, const void *buf, uint64_t length, uint64_t offset
) noexcept nogil:
    cdef int rc
    if dev.log == NULL:
        rc = write_all(dev, buf, length, offset)
    else:
        write_log_lock(dev.log)
        rc = write_all(dev, buf, length, offset)
        if rc == 0:
            write_log_append(dev.log, LOG_WRITE, offset, length, buf)
        write_log_unlock(dev.log)
    return count(dev, &dev.writes, &dev.bytes_written, rc, length)


cdef int device_pwrite_page(device_t *dev, const void *page, uint64_t offset) noexcept nogil:
    cdef int rc = device_pwrite(dev, page, PAGE, offset)
    if rc:
        device_pwrite(dev, page, PAGE, offset)
    return rc


cdef int device_try_reserve(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    """-ENOSPC when the host is full; 0 otherwise, whether there is such a thing or not."""
    if dev.is_block or load32(&dev.cannot_reserve) or offset > dev.size or length > dev.size - offset:
        return 0
    while fallocate(dev.fd, FALLOC_FL_KEEP_SIZE, <off_t> offset, <off_t> length) != 0:
        if c_errno == ENOSPC or c_errno == EDQUOT:
            return -ENOSPC
        if c_errno != EINTR:
            # Only an advance: the write itself will tell what is wrong.
            store32(&dev.cannot_reserve, 1)
            break
    return 0


cdef int device_reserve(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    return count_error(dev, device_try_reserve(dev, offset, length))


cdef uint64_t device_room(device_t *dev) noexcept nogil:
    cdef statvfs found
    if fstatvfs(dev.fd, &found):
        return 0
    return <uint64_t> found.f_bavail * found.f_frsize


cdef bint device_can_reserve(device_t *dev) noexcept nogil:
    return dev.is_block or not load32(&dev.cannot_reserve)


cdef int device_pwrite_new(
    device_t *dev, const void *buf, uint64_t length, uint64_t offset
) noexcept nogil:
    cdef int rc = 0
    if length >= <uint64_t> RESERVE_FROM:
        rc = device_reserve(dev, offset, length)
    return rc if rc else device_pwrite(dev, buf, length, offset)


cdef int flush_all(device_t *dev) noexcept nogil:
    cdef uint64_t cut
    cdef int rc
    if dev.faults != NULL:
        rc = device_fault(dev.faults, FAULT_FLUSH, 0, 0, &cut)
        if rc:
            return rc
    # Where something was cut off nothing of it is durable, whatever the rest says.
    if lost_bytes(dev):
        return -ENXIO
    add64(&dev.flushes, 1)
    while fdatasync(dev.fd) != 0:
        if c_errno != EINTR:
            return -c_errno
    return 0


cdef int device_flush(device_t *dev) noexcept nogil:
    cdef int rc
    if dev.log == NULL:
        return count_error(dev, flush_all(dev))
    write_log_lock(dev.log)
    rc = flush_all(dev)
    if rc == 0:
        write_log_append(dev.log, LOG_FLUSH, 0, 0, NULL)
    write_log_unlock(dev.log)
    return count_error(dev, rc)


cdef void device_start_writeback(
    device_t *dev, uint64_t offset, uint64_t length
) noexcept nogil:
    sync_file_range(dev.fd, <off_t> offset, <off_t> length, SYNC_FILE_RANGE_WRITE)


cdef int zero_all(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    cdef int mode, rc
    cdef uint64_t piece
    cdef uint64_t cut
    if offset > dev.size or length > dev.size - offset:
        return -EIO
    if length == 0:
        return 0
    if dev.faults != NULL:
        rc = device_fault(dev.faults, FAULT_WRITE, offset, length, &cut)
        if rc:
            return rc
    # A block device zeroes by WRITE ZEROES; punching it may leave old data on some.
    mode = FALLOC_FL_ZERO_RANGE if dev.is_block else FALLOC_FL_PUNCH_HOLE
    while True:
        if fallocate(dev.fd, mode | FALLOC_FL_KEEP_SIZE, <off_t> offset, <off_t> length) == 0:
            return 0
        if c_errno == EINTR:
            continue
        break
    # Not supported there, or not for this alignment: write the zeros.
    while length:
        piece = min(length, <uint64_t> ZEROES)
        rc = write_all(dev, device_zeroes, piece, offset)
        if rc:
            return rc
        offset += piece
        length -= piece
    return 0


cdef int device_zero(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    cdef int rc
    if dev.log == NULL:
        return count_error(dev, zero_all(dev, offset, length))
    write_log_lock(dev.log)
    rc = zero_all(dev, offset, length)
    if rc == 0 and length:
        write_log_append(dev.log, LOG_ZERO, offset, length, NULL)
    write_log_unlock(dev.log)
    return count_error(dev, rc)


cdef void discard_all(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t[2] extent
    extent[0] = offset
    extent[1] = length
    if dev.is_block:
        ioctl(dev.fd, BLKDISCARD, extent)
    else:
        fallocate(
            dev.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <off_t> offset, <off_t> length
        )


cdef void device_discard(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    if dev.log == NULL:
        discard_all(dev, offset, length)
    else:
        write_log_lock(dev.log)
        discard_all(dev, offset, length)
        write_log_append(dev.log, LOG_DISCARD, offset, length, NULL)
        write_log_unlock(dev.log)
    count(dev, &dev.discards, &dev.bytes_discarded, 0, length)


cdef uint64_t device_next_data(device_t *dev, uint64_t offset) noexcept nogil:
    cdef off_t data
    if dev.is_block or dev.reader != NULL:
        return offset
    data = lseek(dev.fd, <off_t> offset, SEEK_DATA)
    if data >= 0:
        return <uint64_t> data
    # ENXIO: nothing but a hole until the end. Anything else: it may be anywhere.
    return max(offset, dev.size) if c_errno == ENXIO else offset


cdef bint device_is_hole(device_t *dev, uint64_t offset, uint64_t length) noexcept nogil:
    return device_next_data(dev, offset) >= offset + length


def _lock_holders(int fd):
    """Who holds a lock on the file behind fd: ["fio (pid 12)", ...], as /proc/locks tells."""
    status = os.fstat(fd)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    holders = []
    with open("/proc/locks", encoding="ascii", errors="replace") as locks:
        for line in locks:
            fields = line.split()
            if "->" in fields or wanted not in fields:
                continue
            pid = fields[4]
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                    holders.append(f"{comm.read().strip()} (pid {pid})")
            except OSError:
                holders.append(f"pid {pid}")
    return holders


cdef class Device:
    def __cinit__(self):
        self.dev.fd = -1
        self.dev.write_piece = PAGE

    def __init__(self, str path, *, bint read_only=False, bint lock=True):
        import fcntl

        cdef uint64_t size = 0
        cdef int block_size = 512
        flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
        fd = os.open(path, flags)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISBLK(mode):
                if lock and not read_only:
                    self._claim_block_device(path, fd)
                if ioctl(fd, BLKGETSIZE64, &size) != 0 or ioctl(fd, BLKSSZGET, &block_size) != 0:
                    raise OSError(c_errno, os.strerror(c_errno), path)
            elif stat.S_ISREG(mode):
                size = os.fstat(fd).st_size
            else:
                raise OSError(
                    errno.EINVAL, "neither a regular file nor a block device", path
                )
            if lock:
                try:
                    fcntl.flock(fd, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                except BlockingIOError:
                    holders = ", ".join(_lock_holders(fd)) or "another process"
                    raise OSError(errno.EBUSY, f"in use by {holders}", path) from None
        except BaseException:
            os.close(fd)
            raise
        self.path = path
        self.dev.fd = fd
        self.dev.size = size
        self.dev.block_size = block_size
        self.dev.is_block = stat.S_ISBLK(mode)
        self.dev.read_only = read_only
        self.dev.write_piece = write_piece(fd, self.dev.is_block)
        self.dev.slow_holes = not self.dev.is_block and is_on_ext4(fd)

    def _claim_block_device(self, str path, int fd):
        """Refuses a block device that is mounted or otherwise held (O_EXCL tells)."""
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise OSError(
                errno.EBUSY, "mounted or held by another kernel user", path
            ) from None

    def __dealloc__(self):
        device_faults_free(self.dev.faults)
        if self.dev.fd >= 0:
            os.close(self.dev.fd)

    def _check_open(self):
        if self.dev.fd < 0:
            raise ValueError(f"{self.path}: device is closed")

    @property
    def size(self):
        return self.dev.size

    @property
    def block_size(self):
        return self.dev.block_size

    @property
    def is_block(self):
        return bool(self.dev.is_block)

    @property
    def read_only(self):
        return bool(self.dev.read_only)

    @property
    def closed(self):
        return self.dev.fd < 0

    @property
    def counters(self):
        return {
            "reads": load64(&self.dev.reads),
            "bytes_read": load64(&self.dev.bytes_read),
            "writes": load64(&self.dev.writes),
            "bytes_written": load64(&self.dev.bytes_written),
            "discards": load64(&self.dev.discards),
            "bytes_discarded": load64(&self.dev.bytes_discarded),
            "flushes": load64(&self.dev.flushes),
            "errors": load64(&self.dev.errors),
            "no_space": load64(&self.dev.no_space),
        }

    def pread(self, length, offset):
        self._check_open()
        cdef uint64_t size = length, at = offset
        if at > self.dev.size or size > self.dev.size - at:
            raise OSError(
                errno.EINVAL, f"read of {size} bytes at {at} is past the end ({self.dev.size})", self.path
            )
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef char *buf = PyBytes_AS_STRING(data)
        cdef int rc
        with nogil:
            rc = device_pread(&self.dev, buf, size, at)
        self._raise_for(rc, "read", at)
        return data

    def pwrite(self, const uint8_t[::1] data not None, offset):
        self._check_open()
        cdef uint64_t at = offset, size = data.shape[0]
        cdef int rc
        if at > self.dev.size or size > self.dev.size - at:
            raise OSError(
                errno.EINVAL, f"write of {size} bytes at {at} is past the end ({self.dev.size})", self.path
            )
        if size == 0:
            return
        with nogil:
            rc = device_pwrite(&self.dev, &data[0], size, at)
        self._raise_for(rc, "write", at)

    def zero(self, offset, length):
        self._check_open()
        cdef uint64_t at = offset, size = length
        cdef int rc
        with nogil:
            rc = device_zero(&self.dev, at, size)
        self._raise_for(rc, "zeroing", at)

    def flush(self):
        self._check_open()
        cdef int rc
        with nogil:
            rc = device_flush(&self.dev)
        self._raise_for(rc, "flush", 0)

    def refresh_size(self):
        """The size now; a grown file or device is taken over."""
        cdef uint64_t size = 0
        self._check_open()
        if self.dev.is_block:
            if ioctl(self.dev.fd, BLKGETSIZE64, &size) != 0:
                raise OSError(c_errno, os.strerror(c_errno), self.path)
        else:
            size = os.fstat(self.dev.fd).st_size
        self.dev.size = size
        return size

    def explain(self, int error):
        """strerror, or what is behind it."""
        lost = self.lost_bytes if error in (errno.EIO, errno.ENXIO) else 0
        return f"{self.path} has become smaller by {lost} bytes" if lost else os.strerror(error)

    @property
    def lost_bytes(self):
        return 0 if self.dev.fd < 0 else lost_bytes(&self.dev)

    def record(self, str path):
        """From now on every write, zeroing, discard and flush is appended to a log at `path`
        (format: write_log.pxd). Before any other thread uses the device."""
        cdef bytes raw = os.fsencode(path)
        self._check_open()
        if self.dev.log != NULL:
            raise ValueError(f"{self.path}: recorded already")
        self.dev.log = write_log_open(raw)
        if self.dev.log == NULL:
            raise OSError(c_errno, os.strerror(c_errno), path)

    def mark(self, number):
        """Appends a mark of the caller's to the log of a recorded device."""
        cdef uint64_t value = number
        if self.dev.log == NULL:
            raise ValueError(f"{self.path}: not recorded")
        write_log_lock(self.dev.log)
        write_log_append(self.dev.log, LOG_MARK, value, 0, NULL)
        write_log_unlock(self.dev.log)
        if self.dev.log.failed:
            raise OSError(self.dev.log.failed, os.strerror(self.dev.log.failed), "write log")

    def plant_fault(
        self, str operation, int error, *, skip=0, times=None, offset=0, length=None, cut=0
    ):
        """Makes requests fail; for tests alone, which must ask for it in the environment."""
        cdef device_fault_t fault
        cdef device_faults_t *made
        if os.environ.get("LVOLFS_SEEDED_FAULTS") != "1":
            raise PermissionError(errno.EPERM, "planted faults are for tests alone")
        self._check_open()
        fault.kind = DEVICE_OPERATIONS[operation]
        fault.error = error
        fault.skip = skip
        fault.times = 0xFFFFFFFFFFFFFFFF if times is None else times
        fault.first = offset
        fault.end = self.dev.size if length is None else offset + length
        fault.cut = cut
        if self.dev.faults == NULL:
            made = device_faults_new()
            if made == NULL:
                raise MemoryError
            # Other threads may use the device already.
            if not cas_pointer(<void **> &self.dev.faults, NULL, made):
                device_faults_free(made)
        cdef int rc = device_faults_add(self.dev.faults, &fault)
        if rc:
            raise OSError(-rc, "too many planted faults", self.path)

    def clear_faults(self):
        if self.dev.faults != NULL:
            device_faults_clear(self.dev.faults)

    @property
    def injected_faults(self):
        return 0 if self.dev.faults == NULL else load64(&self.dev.faults.injected)

    def fileno(self):
        self._check_open()
        return self.dev.fd

    def close(self):
        if self.dev.log != NULL:
            write_log_close(self.dev.log)
            self.dev.log = NULL
        if self.dev.fd >= 0:
            fd = self.dev.fd
            self.dev.fd = -1
            os.close(fd)
        self.dev.reader = NULL
        self.owner = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, tb):
        self.close()

    cdef _raise_for(self, int rc, str what, uint64_t offset):
        if rc:
            raise OSError(-rc, f"{what} at byte {offset}: {self.explain(-rc)}", self.path)


DEVICE_OPERATIONS = {"read": FAULT_READ, "write": FAULT_WRITE, "flush": FAULT_FLUSH}
