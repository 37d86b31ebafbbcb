"""What a lvol shows through its whole chain: where each cluster is and what is known of it."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from lvolfs._native.endpoint import Endpoint
from lvolfs.delta.checksum_table import bit, bits_set
from lvolfs.delta.checksums import table

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm
    from lvolfs.lvstore.lvol import Lvol

# Beside device cluster numbers, as Blob.resolve gives them; UNKNOWN is for content in
# another process.
ZEROS: Final = 0xFFFFFFFF
EXTERNAL: Final = 0xFFFFFFFE
UNKNOWN: Final = 0xFFFFFFFD


class Content(Protocol):
    """One lvol as seen by a comparison; it stays as it is while `reading` is entered."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def cluster_size(self) -> int: ...
    @property
    def num_clusters(self) -> int: ...
    @property
    def space(self) -> object:
        """Places of two contents mean the same where their spaces are the same object."""

    def places(self) -> array[int]:
        """array("I"): per cluster the device cluster, or ZEROS, EXTERNAL, UNKNOWN."""

    def known(self, algorithm: Algorithm) -> tuple[bytes, array[int]]:
        """(bitmap, array("Q")): which clusters' checksums are registered by whoever owns them
        in the chain, and what they are. Those at ZEROS need not be among them."""

    def reading(self) -> AbstractContextManager[Endpoint]: ...


class LvolContent:
    """An lvol of a store that is open in this process."""

    def __init__(self, lvol: Lvol) -> None:
        self._lvol = lvol

    @property
    def name(self) -> str:
        return f"{self._lvol.store.name}/{self._lvol.name}"

    @property
    def size(self) -> int:
        return self._lvol.size

    @property
    def cluster_size(self) -> int:
        return self._lvol.store.cluster_size

    @property
    def num_clusters(self) -> int:
        return self._lvol.num_clusters

    @property
    def space(self) -> object:
        return self._lvol.store

    def places(self) -> array[int]:
        found: array[int] = array("I")
        found.frombytes(self._lvol.blob.resolve())
        if sys.byteorder == "big":
            found.byteswap()
        return found

    def known(self, algorithm: Algorithm) -> tuple[bytes, array[int]]:
        count = self.num_clusters
        bitmap = bytearray(-(-count // 8))
        values = array("Q", bytes(8 * count))
        claimed = bytearray(len(bitmap))
        visible = count
        link: Lvol | None = self._lvol
        while link is not None:
            # Past the end of a smaller one in between, nothing below shows through.
            visible = min(visible, link.num_clusters)
            registered = table(link, algorithm) if link.is_read_only else None
            for cluster in bits_set(link.fragmap()):
                if cluster >= visible:
                    break
                mask = 1 << (cluster & 7)
                if claimed[cluster >> 3] & mask:
                    continue
                claimed[cluster >> 3] |= mask
                if registered is not None and bit(registered.registered, cluster):
                    bitmap[cluster >> 3] |= mask
                    values[cluster] = registered.values[cluster]
            link = link.parent
        return bytes(bitmap), values

    @contextmanager
    def reading(self) -> Iterator[Endpoint]:
        with self._lvol.open(write=False):
            yield Endpoint.of_blob(self._lvol.blob, f"lvol '{self.name}'")
