from typing import TypeAlias

from lvolfs._native.blob import Blob
from lvolfs._native.nbd import NbdTarget

Bytes: TypeAlias = bytes | bytearray | memoryview

class Endpoint:
    """One side of a native copy, comparison or checksum pass. Offsets and sizes are bytes.

    An Endpoint does not lock anything: whoever makes it holds the lvol, file or
    connection for as long as it is used. Reading past the end gives zeros.
    """

    name: str
    @staticmethod
    def of_blob(blob: Blob, name: str, *, own_layer: bool = False) -> Endpoint:
        """own_layer: checksum and copy passes refuse clusters that the blob does not own
        itself (ENODATA) instead of reading them through its ancestors."""
    @staticmethod
    def of_file(fd: int, size: int, name: str) -> Endpoint:
        """A file or block device; the descriptor is duplicated."""
    @staticmethod
    def of_nbd(target: NbdTarget) -> Endpoint: ...
    @property
    def size(self) -> int: ...
    def pread(self, length: int, offset: int) -> bytes: ...
    def pwrite(self, data: Bytes, offset: int) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None:
        """Lets go of the descriptor, blob or connection. No loop may be using it."""
