"""A logical volume: its data, its place in the tree of snapshots, and its life."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from lvolfs._native.blob import Blob
from lvolfs._native.device import Device
from lvolfs.blobstore.descriptors import BlobMetadata, DataReadOnly
from lvolfs.lvstore import lvol_xattrs, parents, resizing, snapshots
from lvolfs.lvstore.external import Source, external_id_of
from lvolfs.lvstore.holds import Claim, Holds, OpenToken
from lvolfs.lvstore.names import renamed_field, text_field

if TYPE_CHECKING:
    from lvolfs._native.blob import Bytes
    from lvolfs.delta.jobs import Job
    from lvolfs.lvstore.store import Lvstore


class Starter(Protocol):
    """What an lvol can start that is done one layer up."""

    def register_checksums(
        self, lvol: Lvol, clusters: Iterable[int | range] | None, algorithm: str
    ) -> Job: ...

    def shallow_copy(
        self,
        lvol: Lvol,
        destination: Lvol | str | os.PathLike[str],
        clusters: Iterable[int | range] | None,
        deep: bool,
    ) -> Job: ...


class LvolNotFound(FileNotFoundError):  # noqa: N818
    """No such lvol, or it has been deleted (ENOENT)."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOENT, message)

    def __str__(self) -> str:
        return str(self.strerror)


class Lvol:
    """Made by Lvstore; all sizes and offsets are bytes, clusters are indices.

    Data calls run in parallel from any thread. What is written is durable after `flush`.
    """

    starter: ClassVar[Starter]
    """Set by the layer above; importing lvolfs is enough."""

    def __init__(
        self,
        store: Lvstore,
        blob: Blob,
        metadata: BlobMetadata,
        name: str,
        uuid: str,
        *,
        frozen: bool = False,
    ) -> None:
        self.store = store
        self.blob = blob
        self.metadata = metadata
        self.name = name
        self.uuid = uuid
        self.parent: Lvol | None = None
        self.children: list[Lvol] = []
        self.external: Device | None = None
        self.deleted = False
        self._frozen = frozen
        self._holds = Holds()

    def __repr__(self) -> str:
        return f"<Lvol {self.store.name}/{self.name}>"

    # -- what it is

    @property
    def id(self) -> int:
        """The blob's id."""
        return self.blob.id

    @property
    def size(self) -> int:
        return self.blob.size

    @property
    def num_clusters(self) -> int:
        return self.blob.num_clusters

    @property
    def num_allocated_clusters(self) -> int:
        """Clusters that this lvol itself owns."""
        return self.blob.num_allocated_clusters

    @property
    def creation_time(self) -> str:
        """As YYYY-MM-DDTHH:MM:SSZ, or "" when it is not recorded."""
        return text_field(self.metadata, "creation_time") or ""

    @property
    def is_snapshot(self) -> bool:
        """Marked read-only for good, or a parent. (SPDK counts only parents, and so forgets
        at every restart that an lvol without clones was made as a snapshot.)"""
        return bool(self.metadata.data_ro & DataReadOnly.READ_ONLY) or bool(self.children)

    @property
    def is_clone(self) -> bool:
        return self.parent is not None

    @property
    def is_thin(self) -> bool:
        return self.blob.thin

    @property
    def is_read_only(self) -> bool:
        """Its data cannot be written: a snapshot, or flags that are not known forbid it."""
        return self.blob.read_only

    @property
    def is_external_clone(self) -> bool:
        return self.external_id is not None

    @property
    def external_id(self) -> str | None:
        return external_id_of(self.metadata)

    @property
    def external_path(self) -> str | None:
        """Path of the external snapshot, None without one or when it is missing."""
        return None if self.external is None else self.external.path

    @property
    def degraded(self) -> bool:
        """An external snapshot that it or an ancestor needs is missing."""
        lvol: Lvol | None = self
        while lvol is not None:
            if lvol.is_external_clone and lvol.external is None:
                return True
            lvol = lvol.parent
        return False

    # -- data

    def pread(self, length: int, offset: int) -> bytes:
        """Exactly `length` bytes. Raises OSError: EINVAL past the end, EIO."""
        try:
            return self._live().pread(length, offset)
        except OSError as error:
            raise self._explain(error, "read") from error

    def readinto(self, buffer: bytearray | memoryview, offset: int) -> None:
        try:
            self._live().readinto(buffer, offset)
        except OSError as error:
            raise self._explain(error, "read") from error

    def pwrite(self, data: Bytes, offset: int) -> None:
        """All of `data`. Raises OSError: EINVAL past the end, EROFS, ENOSPC, EIO."""
        try:
            self._live().pwrite(data, offset)
        except OSError as error:
            raise self._explain(error, "write") from error

    def unmap(self, offset: int, length: int) -> None:
        """Makes the range zeros and gives whole clusters back where it can."""
        try:
            self._live().unmap(offset, length)
        except OSError as error:
            raise self._explain(error, "unmap") from error

    def write_zeroes(self, offset: int, length: int) -> None:
        """Makes the range zeros and keeps its clusters."""
        try:
            self._live().write_zeroes(offset, length)
        except OSError as error:
            raise self._explain(error, "write zeroes to") from error

    def allocate(self, offset: int, length: int) -> None:
        """Gives the range clusters of its own; what it shows stays."""
        try:
            self._live().allocate(offset, length)
        except OSError as error:
            raise self._explain(error, "allocate") from error

    def flush(self) -> None:
        """Everything written to the store before the call is durable when it returns, but what
        flushes of another lvol raise an error for. Once a write to this lvol was lost, it raises
        that error every time."""
        try:
            self._live().flush()
        except OSError as error:
            raise self._explain(error, "flush") from error

    def seek_data(self, offset: int) -> int:
        """As lseek(SEEK_DATA), through the whole chain of parents; ENXIO at the end."""
        return self._live().seek_data(offset)

    def seek_hole(self, offset: int) -> int:
        return self._live().seek_hole(offset)

    def fragmap(self, first: int = 0, count: int | None = None) -> bytes:
        """Bit i (LSB first) of ceil(count/8) bytes: it owns cluster first+i itself."""
        return self._live().fragmap(first, count)

    def _live(self) -> Blob:
        if self.deleted:
            raise LvolNotFound(f"lvol {self.name!r} has been deleted")
        self.store.check_open()
        return self.blob

    def _explain(self, error: OSError, verb: str) -> OSError:
        subject = f"cannot {verb} lvol {self.name!r} of store {self.store.name!r}"
        if error.errno == errno.ENOSPC:
            what = f"{subject}: it needs more room"
            if self.store.free_clusters and self.store.free_pages:
                return self.store.host_is_full(what)
            return self.store.no_space(what)
        if error.errno == errno.EROFS:
            return OSError(errno.EROFS, f"{subject}: it is read-only; write to a clone of it")
        if error.errno == errno.EINVAL:
            return OSError(errno.EINVAL, f"{subject}: out of its {self.size} bytes")
        if error.errno == errno.EIO and self.degraded:
            return OSError(
                errno.EIO, f"{subject}: an external snapshot that it needs is not at hand"
            )
        if isinstance(error, LvolNotFound) or error.errno == errno.EBADF:
            return error
        return OSError(error.errno, f"{subject}: {error.strerror}")

    # -- who holds it

    def open(self, write: bool) -> OpenToken:
        """Counts an open handle until the token is closed. EROFS to write a read-only lvol."""
        with self.store.lock:
            self._live()
            if write and (self.is_read_only or self.store.read_only):
                raise OSError(errno.EROFS, f"lvol {self.name!r} is read-only")
            return self._holds.open(write)

    @property
    def open_count(self) -> int:
        return self._holds.opened

    @property
    def writers(self) -> int:
        return self._holds.writers

    @property
    def busy(self) -> str | None:
        """The operation that holds it, None if there is none."""
        return self._holds.operation

    def claim(self, operation: str) -> Claim:
        """A context manager in which the lvol is busy with `operation`; EBUSY if it is."""
        return Claim(self._holds, self.store.lock, operation, f"lvol {self.name!r}")

    def check_idle(self) -> None:
        """Raises OSError(EBUSY) while an operation holds it."""
        if self.busy is not None:
            raise OSError(
                errno.EBUSY, f"lvol {self.name!r} is busy: {self.busy} is under way; wait or cancel"
            )

    # -- life

    def resize(self, size: int) -> None:
        """Another size, rounded up to clusters. What is new reads as zeros, also where a
        parent has data. Raises OSError: EINVAL, EFBIG, EPERM (snapshot), ENOSPC, EBUSY."""
        resizing.resize(self, size)

    def extend(self, size: int) -> None:
        """At least this size, for a write past the end: unlike that of `resize` it is durable
        only after a flush. Raises what `resize` raises."""
        resizing.extend(self, size)

    def rename(self, name: str) -> None:
        """Raises OSError: EEXIST, EINVAL or ENAMETOOLONG."""
        with self.store.changing():
            self._live()
            if name == self.name:
                return
            self.store.check_new_name(name)
            self.check_metadata_writable()
            self.write_metadata(lvol_xattrs.changed(self, {"name": renamed_field(name)}))
            self.store.rename_lvol(self, name)
            self.store.notify("renamed", self)

    def delete(self) -> None:
        """Removes it. A snapshot with one clone is merged into the clone first.
        Raises OSError(EBUSY) for a snapshot with several clones and for an lvol in use."""
        snapshots.delete(self)

    def snapshot(self, name: str, xattrs: Mapping[str, bytes] | None = None) -> Lvol:
        """Freezes its content as a new read-only lvol, of which it becomes a clone."""
        return snapshots.create_snapshot(self, name, xattrs or {})

    def clone(self, name: str) -> Lvol:
        """A writable thin lvol that begins with this read-only one's content."""
        return snapshots.create_clone(self, name)

    def inflate(
        self,
        progress: Callable[[int, int], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> None:
        """Allocates every cluster, copies what its ancestors show, and drops the parent.

        progress(done, total) in clusters; when cancel() is true it stops with ECANCELED.
        """
        parents.inflate(self, progress, cancel)

    def decouple(
        self,
        progress: Callable[[int, int], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> None:
        """Copies what its parent owns; the parent's parent, if any, becomes its parent."""
        parents.decouple(self, progress, cancel)

    def detach(self) -> None:
        """Drops all ancestry without copying: what it does not own reads as zeros after.
        Registered checksums stay. EINVAL without a parent or with an external one."""
        parents.detach(self)

    def set_parent(self, snapshot: Lvol) -> None:
        """What it does not own will show `snapshot`. EINVAL: not thin, larger parent, not a
        snapshot, own descendant, another store; EEXIST: is its parent already."""
        parents.set_parent(self, snapshot)

    def set_external_parent(self, source: Source, snapshot_id: str | None = None) -> None:
        """What it does not own will show the file or device at a path, or a read-only lvol of
        another store."""
        parents.set_external_parent(self, source, snapshot_id)

    def set_read_only(self) -> None:
        """Forbids writing for good; it counts as a snapshot from then on."""
        with self.store.changing():
            self._live()
            self.check_metadata_writable()
            self.check_idle()
            if self.writers:
                raise OSError(errno.EBUSY, f"lvol {self.name!r} is open for writing")
            if self.metadata.data_ro & DataReadOnly.READ_ONLY:
                return
            metadata = self.metadata.copy()
            metadata.data_ro |= DataReadOnly.READ_ONLY
            self.write_metadata(metadata)
            with self.store.engine.exclusive():
                self.blob.set_read_only(True)
            self.store.notify("changed", self)

    # -- checksums and copies: started from here, done one layer up

    def register_checksums(
        self, clusters: Iterable[int | range] | None = None, algorithm: str = "xxh3"
    ) -> Job:
        """See lvolfs.delta.checksums.register."""
        return self.starter.register_checksums(self, clusters, algorithm)

    def shallow_copy(
        self,
        destination: Lvol | str | os.PathLike[str],
        clusters: Iterable[int | range] | None = None,
        deep: bool = False,
    ) -> Job:
        """See lvolfs.delta.copy.shallow_copy."""
        return self.starter.shallow_copy(self, destination, clusters, deep)

    # -- xattrs

    def get_xattr(self, name: str) -> bytes:
        """Raises OSError(ENODATA) without it."""
        with self.store.lock:
            try:
                return self.metadata.xattrs[name]
            except KeyError:
                raise OSError(errno.ENODATA, f"lvol {self.name!r} has no xattr {name!r}") from None

    def list_xattrs(self) -> list[str]:
        """Those that users have set; the lvol's identity and checksums are left out."""
        with self.store.lock:
            return lvol_xattrs.user_xattrs(self.metadata)

    def set_xattr(self, name: str, value: bytes) -> None:
        """Durable when it returns. Raises OSError: EPERM on a snapshot or for a reserved
        name, E2BIG, EINVAL, ENOSPC."""
        self._change_user_xattr(name, bytes(value))

    def remove_xattr(self, name: str) -> None:
        self.get_xattr(name)
        self._change_user_xattr(name, None)

    def _change_user_xattr(self, name: str, value: bytes | None) -> None:
        with self.store.changing():
            self._live()
            if lvol_xattrs.is_reserved(name):
                raise OSError(errno.EPERM, f"xattr {name!r} is reserved")
            if self.is_read_only:
                raise OSError(
                    errno.EPERM, f"lvol {self.name!r} is read-only, and so are its xattrs"
                )
            self.check_metadata_writable()
            self.write_metadata(lvol_xattrs.changed(self, {name: value}))
            self.store.notify("changed", self)

    @property
    def checksum_records(self) -> bytes:
        """Packed {u64 checksum, u32 run} records as Longhorn's SPDK keeps them, or b""."""
        return self.blob.checksums

    def set_reserved_xattrs(
        self, updates: Mapping[str, bytes | None], checksum_records: bytes | None = None
    ) -> None:
        """Registered checksums: xattrs (None removes one) and, unless None, the records of
        the checksum descriptor, in one durable change. Allowed on snapshots."""
        with self.store.changing():
            self._live()
            for name in updates:
                if name in lvol_xattrs.IDENTITY or not lvol_xattrs.is_reserved(name):
                    raise OSError(errno.EPERM, f"xattr {name!r} does not belong to checksums")
            self.check_metadata_writable()
            metadata = lvol_xattrs.changed(self, updates)
            self.write_metadata(metadata, checksum_records)
            self.store.notify("changed", self)

    # -- for the operations in this package

    def check_live(self) -> None:
        self._live()

    def check_metadata_writable(self) -> None:
        if self._frozen:
            raise OSError(
                errno.EPERM,
                f"lvol {self.name!r} carries flags or records of a newer format; it can only be "
                "read",
            )

    def write_metadata(self, metadata: BlobMetadata, checksum_records: bytes | None = None) -> None:
        """Makes new metadata durable; on an error the old ones stay."""
        with self.store.engine.exclusive():
            before = self.blob.checksums
            if checksum_records is not None:
                self.blob.set_checksums(checksum_records)
            try:
                self.persist(metadata)
            except OSError as error:
                if checksum_records is not None:
                    self.blob.set_checksums(before)
                if error.errno == errno.ENOSPC:
                    raise self.store.no_space(
                        f"lvol {self.name!r} needs another metadata page"
                    ) from error
                raise

    def persist(self, metadata: BlobMetadata) -> None:
        """Lvstore.persist for this lvol, inside engine.exclusive()."""
        self.store.persist(self.blob, metadata.pack_head())
        self.metadata = metadata

    def link_parent(self, parent: Lvol | None) -> None:
        """Makes `parent` (None: nobody) its parent in memory, inside engine.exclusive()."""
        if self.parent is not None:
            self.parent.children.remove(self)
        self.external = None
        self.blob.set_external_parent(None)
        self.blob.set_parent(None if parent is None else parent.blob)
        self.parent = parent
        if parent is not None:
            parent.children.append(self)

    def link_external(self, device: Device | None) -> None:
        """Makes an external snapshot (None: a missing one) its parent in memory, inside
        engine.exclusive()."""
        self.link_parent(None)
        self.external = device
        self.blob.set_external_parent(device, missing=device is None)

    def link_as(self, other: Lvol) -> None:
        """Takes over whatever `other` has as its parent, inside engine.exclusive()."""
        if other.is_external_clone:
            self.link_external(other.external)
        else:
            self.link_parent(other.parent)
