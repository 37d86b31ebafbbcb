"""CRC-64/ISO reflected and XXH3-64, and the loop that takes them of clusters.

Arrays of cluster indexes are native u32 (`array("I")`), of checksums native u64 (`array("Q")`).
"""

from array import array
from typing import Literal, TypeAlias

from lvolfs._native.control import Control
from lvolfs._native.endpoint import Endpoint

Bytes: TypeAlias = bytes | bytearray | memoryview
Algorithm: TypeAlias = Literal["xxh3", "crc64"]

def crc64(data: Bytes, seed: int = 0) -> int:
    """CRC-64/GO-ISO; pass the previous result as seed to go on."""

def xxh3(data: Bytes) -> int:
    """XXH3-64 with seed 0."""

def crc64_combine(values: array[int], length: int) -> int:
    """The CRC of the pieces joined, from the CRC of each, all `length` bytes long; 0 for none."""

def xxh3_combine(clusters: array[int], values: array[int]) -> int:
    """XXH3-64 over (u64 LE cluster index, u64 LE checksum) of each cluster, in the order given."""

def snapshot_checksum(
    algorithm: Algorithm,
    clusters: array[int],
    values: array[int] | memoryview[int],
    cluster_size: int,
) -> int:
    """Of a whole snapshot, from its owned clusters in index order and their checksums."""

def zero_cluster(algorithm: Algorithm, cluster_size: int) -> int:
    """The checksum of a cluster full of zeros."""

class ChecksumLoop:
    """Checksums of the given clusters of an endpoint; run() in one thread or in several."""

    failed_cluster: int
    def __init__(
        self,
        endpoint: Endpoint,
        algorithm: Algorithm,
        clusters: array[int],
        cluster_size: int,
        control: Control,
    ) -> None: ...
    def run(self) -> None:
        """Without the GIL, until all clusters are taken. OSError(ECANCELED) when cancelled,
        the read's error otherwise; other threads then end without one."""
    def values_bytes(self) -> bytes:
        """Native u64 for each cluster given; meaningful when every run() has returned."""
