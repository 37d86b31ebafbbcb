from typing import TypedDict

from lvolfs._native.blob import Blob
from lvolfs._native.device import Device

CALL: str
"""struct format of a call to Python: id, kind, cmd, inode, fh, size, uid, gid, pid, flags,
in_size, out_size; in_size bytes of an ioctl's argument follow."""
ANSWER: str
"""struct format of an answer: id, kind, error (0 or -errno), result, size; size bytes follow."""
CALL_IOCTL: int
CALL_GROW: int
CALL_ENDED: int

class Counters(TypedDict):
    """requests and errors by FUSE opcode; replies_lost: refused by the kernel."""

    requests: dict[int, int]
    errors: dict[int, int]
    bytes_read: int
    bytes_written: int
    replies_lost: int

class Negotiated(TypedDict):
    """What INIT agreed on: INIT flags of the kernel and of our reply, limits in bytes and
    requests, whether volumes bypass the page cache, and whether requests come through
    io_uring instead of reads."""

    offered: int
    accepted: int
    max_write: int
    max_background: int
    direct_io: bool
    io_uring: bool

class Lane:
    """A mounted FUSE connection whose data requests are answered by native threads.

    Everything else goes to pyfuse3, which takes hand_over() for its mount point. `control_fd`
    is a SOCK_SEQPACKET socket with CALL messages to read and ANSWER messages to write.
    """

    mountpoint: str
    control_fd: int
    threads: int
    def __init__(
        self,
        mountpoint: str,
        options: str,
        *,
        threads: int | None = None,
        max_background: int = 256,
        page_cache: bool = False,
        io_uring: bool = False,
    ) -> None:
        """Mounts. page_cache: volumes are read through the kernel's page cache. io_uring: ask
        the kernel for FUSE over io_uring; negotiated() tells whether it offered that.

        Raises OSError naming the mount point; libfuse prints why on stderr.
        """
    def hand_over(self) -> str:
        """The path for pyfuse3.init(), which closes what is behind it in pyfuse3.close()."""
    def start(self) -> None: ...
    def stop(self) -> None:
        """Ends the threads and closes everything. Unmount first: what is still mounted
        answers "transport endpoint is not connected" afterwards."""
    def open_volume(self, blob: Blob, *, may_write: bool) -> int:
        """A native file handle; the blob lives until close_handle. OSError(EMFILE) at 65,536."""
    def open_device(self, device: Device, *, may_write: bool) -> int:
        """A native file handle on a flat file or block device of fixed size."""
    def close_handle(self, fh: int) -> None: ...
    @staticmethod
    def is_native(fh: int) -> bool: ...
    def invalidate_inode(self, inode: int, offset: int = 0, length: int = 0) -> None:
        """Makes the kernel forget attributes and cached pages. May wait for requests that
        are under way: never call it from the thread that has to answer them."""
    @property
    def open_handles(self) -> int: ...
    def counters(self) -> Counters: ...
    def negotiated(self) -> Negotiated: ...
