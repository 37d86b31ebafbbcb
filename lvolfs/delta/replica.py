"""A store as one side of a rebuild: what the rebuild asks of it, wherever it is open."""

from __future__ import annotations

import errno
from array import array
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvolfs._native.endpoint import Endpoint
from lvolfs.bdev.lvol import open_lvol
from lvolfs.delta import checksums
from lvolfs.delta.background import threads_for
from lvolfs.delta.checksum_table import ClusterChecksums, bits_set, make_table, without

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lvolfs._native.checksum import Algorithm
    from lvolfs._native.control import Control
    from lvolfs.delta.checksum_table import ChecksumTable
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore

# How often a waiting caller looks whether it has been cancelled, in seconds.
_POLL = 0.05


@dataclass(frozen=True)
class Layer:
    """One lvol of a replica. size is bytes; owned counts clusters; parent and children are
    names; xattrs are the users'."""

    name: str
    uuid: str
    size: int
    num_clusters: int
    owned: int
    parent: str | None
    children: tuple[str, ...]
    read_only: bool
    snapshot: bool
    external: bool
    in_use: bool
    xattrs: Mapping[str, bytes]


class Replica(Protocol):
    """A store that a rebuild reads from or writes to. Lvols are given by name.

    An implementation for a store in another process answers the questions by its RPC and
    gives endpoints on the mount's files. Every change is durable when the call returns;
    errors are OSError.
    """

    @property
    def title(self) -> str:
        """For messages and reports."""

    @property
    def location(self) -> str:
        """Real path of the file or device: two replicas with one location are one store."""

    @property
    def cluster_size(self) -> int: ...
    @property
    def read_only(self) -> bool: ...

    # -- questions
    def layer(self, name: str) -> Layer | None: ...
    def fragmap(self, name: str) -> bytes:
        """Bit i (LSB first): the lvol owns cluster i itself."""

    def checksums(self, name: str, algorithm: Algorithm) -> ChecksumTable | None:
        """What is registered, if it has a snapshot checksum."""

    def progress(self, name: str) -> dict[str, bytes]:
        """The xattrs that `set_progress` has set."""

    # -- data
    def reading(self, name: str) -> AbstractContextManager[Endpoint]:
        """The lvol's own clusters; while it is entered the lvol cannot be deleted."""

    def writing(self, name: str) -> AbstractContextManager[Endpoint]:
        """EBUSY when it is open for writing already."""

    def register(
        self,
        name: str,
        algorithm: Algorithm,
        control: Control,
        known: ClusterChecksums | None = None,
    ) -> ChecksumTable:
        """Registers all owned clusters of a snapshot and waits; ECANCELED with `control`.
        Those in `known` are not read. On a read-only store they are only computed."""

    # -- changes
    def create_volume(self, name: str, size: int) -> None: ...
    def clone(self, snapshot: str, name: str) -> None: ...
    def snapshot(self, name: str, snapshot: str, xattrs: Mapping[str, bytes]) -> None: ...
    def delete(self, name: str) -> None: ...
    def detach(self, name: str) -> None: ...
    def set_parent(self, name: str, parent: str) -> None: ...
    def resize(self, name: str, size: int) -> None: ...
    def rename(self, name: str, new_name: str) -> None: ...
    def set_xattr(self, name: str, xattr: str, value: bytes) -> None: ...
    def set_progress(self, name: str, updates: Mapping[str, bytes | None]) -> None:
        """Sets, or removes where None, xattrs called lvolfs.rebuild*, in one durable change."""


PROGRESS_XATTR = "lvolfs.rebuild"


class LocalReplica:
    """A store that is open in this process."""

    def __init__(self, store: Lvstore) -> None:
        self.store = store

    @property
    def title(self) -> str:
        return f"{self.store.name} ({self.store.path})"

    @property
    def location(self) -> str:
        return str(Path(self.store.path).resolve())

    @property
    def cluster_size(self) -> int:
        return self.store.cluster_size

    @property
    def read_only(self) -> bool:
        return self.store.read_only

    def _find(self, name: str) -> Lvol | None:
        with self.store.lock:
            for lvol in self.store.lvols:
                if lvol.name == name:
                    return lvol
        return None

    def _get(self, name: str) -> Lvol:
        found = self._find(name)
        return found if found is not None else self.store.get(name)

    def layer(self, name: str) -> Layer | None:
        with self.store.lock:
            lvol = self._find(name)
            if lvol is None:
                return None
            return Layer(
                name=lvol.name,
                uuid=lvol.uuid,
                size=lvol.size,
                num_clusters=lvol.num_clusters,
                owned=lvol.num_allocated_clusters,
                parent=lvol.parent.name if lvol.parent is not None else None,
                children=tuple(sorted(child.name for child in lvol.children)),
                read_only=lvol.is_read_only,
                snapshot=lvol.is_snapshot,
                external=lvol.is_external_clone,
                in_use=lvol.open_count > 0 or lvol.busy is not None,
                xattrs={each: lvol.get_xattr(each) for each in lvol.list_xattrs()},
            )

    def fragmap(self, name: str) -> bytes:
        return self._get(name).fragmap()

    def checksums(self, name: str, algorithm: Algorithm) -> ChecksumTable | None:
        found = checksums.table(self._get(name), algorithm)
        return found if found is not None and found.snapshot_checksum is not None else None

    def progress(self, name: str) -> dict[str, bytes]:
        with self.store.lock:
            xattrs = self._get(name).metadata.xattrs
            return {key: value for key, value in xattrs.items() if key.startswith(PROGRESS_XATTR)}

    @contextmanager
    def reading(self, name: str) -> Iterator[Endpoint]:
        lvol = self._get(name)
        with lvol.open(write=False):
            yield Endpoint.of_blob(
                lvol.blob, f"lvol '{self.store.name}/{lvol.name}'", own_layer=True
            )

    @contextmanager
    def writing(self, name: str) -> Iterator[Endpoint]:
        with open_lvol(self._get(name), operation="rebuild") as destination:
            yield destination.endpoint

    def register(
        self,
        name: str,
        algorithm: Algorithm,
        control: Control,
        known: ClusterChecksums | None = None,
    ) -> ChecksumTable:
        if self.store.read_only:
            return self._hashed(name, algorithm, control, known)
        job = checksums.register(
            self._get(name), algorithm=algorithm, rate=control.rate, known=known
        )
        while not job.wait(_POLL):
            if control.cancelled:
                job.cancel()
        job.raise_if_failed()
        found = self.checksums(name, algorithm)
        if found is None:
            raise OSError(errno.EIO, f"the checksums of '{name}' in {self.title} are gone again")
        return found

    def _hashed(
        self, name: str, algorithm: Algorithm, control: Control, known: ClusterChecksums | None
    ) -> ChecksumTable:
        owned = self.fragmap(name)
        gathered = known or ClusterChecksums(self._get(name).num_clusters)
        clusters = array("I", bits_set(without(owned, gathered.registered)))
        with self.reading(name) as endpoint:
            found = checksums.hash_clusters(
                endpoint,
                algorithm,
                clusters,
                self.cluster_size,
                control,
                threads=threads_for(None),
            )
        gathered.note(clusters, found)
        return make_table(algorithm, self.cluster_size, owned, owned, gathered.values)

    def create_volume(self, name: str, size: int) -> None:
        self.store.create_volume(name, size)

    def clone(self, snapshot: str, name: str) -> None:
        self._get(snapshot).clone(name)

    def snapshot(self, name: str, snapshot: str, xattrs: Mapping[str, bytes]) -> None:
        self._get(name).snapshot(snapshot, xattrs)

    def delete(self, name: str) -> None:
        self._get(name).delete()

    def detach(self, name: str) -> None:
        self._get(name).detach()

    def set_parent(self, name: str, parent: str) -> None:
        self._get(name).set_parent(self._get(parent))

    def resize(self, name: str, size: int) -> None:
        self._get(name).resize(size)

    def rename(self, name: str, new_name: str) -> None:
        self._get(name).rename(new_name)

    def set_xattr(self, name: str, xattr: str, value: bytes) -> None:
        self._get(name).set_xattr(xattr, value)

    def set_progress(self, name: str, updates: Mapping[str, bytes | None]) -> None:
        self._get(name).set_reserved_xattrs(updates)
