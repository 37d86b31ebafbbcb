from array import array
from typing import Literal, TypeAlias

from lvolfs._native.checksum import Algorithm
from lvolfs._native.control import Control
from lvolfs._native.endpoint import Endpoint

Bytes: TypeAlias = bytes | bytearray | memoryview

COPY: int
UNMAP: int

class CopyLoop:
    """Copies or unmaps whole clusters, in the order given; run() in one thread or in several.

    clusters: array("I") of indexes; actions: one byte each, COPY or UNMAP. UNMAP follows
    SPDK's rule when the destination is an lvol: a cluster it owns is freed, or zeroed if it
    has a parent, and one it does not own is left alone; files, devices and NBD exports read
    as zeros there afterwards. sparse: a cluster that is a hole at the source is unmapped at the
    destination instead of written, for destinations where both mean zeros. The first error ends
    the copy; what was done stays and is in the control's counters.
    """

    failed_cluster: int
    failed_side: Literal["source", "destination"] | None
    def __init__(
        self,
        source: Endpoint,
        destination: Endpoint,
        clusters: array[int],
        actions: Bytes,
        cluster_size: int,
        control: Control,
        *,
        algorithm: Algorithm | None = None,
        sparse: bool = False,
    ) -> None: ...
    def run(self) -> None:
        """Without the GIL, until all clusters are taken. OSError(ECANCELED) when cancelled;
        otherwise the error names side, cluster and reason."""
    def values_bytes(self) -> bytes:
        """With an algorithm: native u64 for each cluster given, the checksum of what was copied;
        meaningful where every run() has returned without an error, and not for UNMAP."""
    def flush(self) -> None:
        """Makes the destination durable."""
