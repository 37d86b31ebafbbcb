from array import array

from lvolfs._native.control import Control
from lvolfs._native.endpoint import Endpoint

class CompareLoop:
    """Reads the given clusters of both endpoints and tells which differ."""

    def __init__(
        self,
        left: Endpoint,
        right: Endpoint,
        clusters: array[int],
        cluster_size: int,
        control: Control,
    ) -> None: ...
    def run(self) -> None:
        """Without the GIL, until all clusters are taken; OSError(ECANCELED) when cancelled."""
    def differs_bytes(self) -> bytes:
        """One byte per cluster given: 1 = different."""
