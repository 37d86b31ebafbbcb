"""An lvol that another process has open, as one side of a comparison."""

import base64
import errno
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvolfs._native.endpoint import Endpoint
from lvolfs.delta.checksum_table import bits_set, little_endian
from lvolfs.delta.content import UNKNOWN, ZEROS
from lvolfs.rpc.client import Caller

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm
    from lvolfs.delta.checksum_table import Values


def decode_values(text: str) -> "Values":
    values: array[int] = array("Q")
    values.frombytes(base64.b64decode(text))
    return little_endian(values)


def encode_values(values: "Values") -> str:
    return base64.b64encode(little_endian(values).tobytes()).decode("ascii")


def file_of(store: dict[str, Any], lvol: dict[str, Any]) -> Path:
    """Where the mount shows an lvol. Raises OSError when the store is not mounted."""
    if store["mountpoint"] is None:
        raise OSError(
            errno.ENOTSUP,
            f"store {store['name']!r} is open in process {store['pid']} but not mounted",
        )
    folder = "snapshots" if lvol["type"] == "snapshot" else "volumes"
    return Path(store["mountpoint"], folder, lvol["name"])


@contextmanager
def open_endpoint(path: Path, size: int, name: str, *, write: bool) -> Iterator[Endpoint]:
    """The file of an lvol as an endpoint; flushed at the end if it is written to."""
    descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        endpoint = Endpoint.of_file(descriptor, size, name)
    finally:
        os.close(descriptor)
    try:
        yield endpoint
        if write:
            endpoint.flush()
    finally:
        endpoint.close()


class RemoteContent:
    """An lvol behind a daemon's socket: maps and checksums by RPC, data through the mount."""

    def __init__(self, caller: Caller, reference: str) -> None:
        self._store: dict[str, Any] = caller.call("lvolfs_get_store")
        self._lvol: dict[str, Any] = caller.call("lvolfs_get_lvol", name=reference)
        self._pages: list[dict[str, Any]] = []
        first = 0
        while first < self.num_clusters:
            page = caller.call("lvolfs_get_content", name=self._lvol["uuid"], first=first)
            self._pages.append(page)
            if not page["count"]:
                break
            first += page["count"]

    @property
    def name(self) -> str:
        return str(self._lvol["alias"])

    @property
    def size(self) -> int:
        return int(self._lvol["size"])

    @property
    def cluster_size(self) -> int:
        return int(self._store["cluster_size"])

    @property
    def num_clusters(self) -> int:
        return int(self._lvol["num_clusters"])

    @property
    def space(self) -> object:
        return self

    def places(self) -> "array[int]":
        found = array("I", [UNKNOWN]) * self.num_clusters
        first = 0
        for page in self._pages:
            for index in bits_set(base64.b64decode(page["zeros"])):
                found[first + index] = ZEROS
            first += page["count"]
        return found

    def known(self, algorithm: "Algorithm") -> "tuple[bytes, array[int]]":
        bitmap = b"".join(base64.b64decode(page[algorithm]["known"]) for page in self._pages)
        values: array[int] = array("Q")
        for page in self._pages:
            values.extend(decode_values(page[algorithm]["checksums"]))
        return bitmap, values

    @contextmanager
    def reading(self) -> Iterator[Endpoint]:
        path = file_of(self._store, self._lvol)
        with open_endpoint(path, self.size, str(path), write=False) as endpoint:
            yield endpoint
