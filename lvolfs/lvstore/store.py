"""The logical volume store: opening, closing, and what belongs to the store as a whole."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lvolfs._native.blob import Blob
from lvolfs._native.device import Device
from lvolfs._native.engine import Engine
from lvolfs.blobstore.contents import StoredBlob
from lvolfs.blobstore.descriptors import BlobMetadata, Invalid
from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.superblock import (
    MAX_CLUSTERS,
    PAGE,
    Superblock,
    grown_superblock,
    read_superblock,
)
from lvolfs.lvstore.closing import mark_clean
from lvolfs.lvstore.external import (
    ExternalSnapshots,
    Source,
    default_external_id,
    external_id_field,
    external_id_of,
)
from lvolfs.lvstore.formatting import EMPTY_SIZE, format_store, name_content
from lvolfs.lvstore.loading import LoadedStore, is_frozen, load_store
from lvolfs.lvstore.lvol import Lvol, LvolNotFound
from lvolfs.lvstore.lvol_table import LvolTable
from lvolfs.lvstore.names import (
    check_name,
    fits_a_file_name,
    new_identity,
    renamed_field,
    text_field,
    uuid_field,
)

log = logging.getLogger(__name__)

# Seconds between two flushes that nobody asks for; 0: there are none.
FLUSH_INTERVAL = 1.0
Event = Callable[[str, Lvol], None]


@dataclass(frozen=True)
class DamagedBlob:
    """A blob that cannot be opened; what it owns, as far as known, is kept from reuse."""

    blob_id: int
    name: str | None
    reason: str


class Lvstore:
    """An open store. Use `create` or `open`; close it, or use it as a context manager.

    All sizes are bytes. Control operations (this class, and everything of Lvol but data) may
    be called from any thread; they hold `lock` one after the other. Errors are OSError.

    `events`: callbacks called as cb(kind, lvol) after each change, with the lock held; kind is
    "created", "deleted", "renamed", "resized", "extended" (for a write past its end) or "changed".
    `closers`: called at the beginning of every close, without the lock.
    """

    def __init__(
        self,
        path: str,
        device: Device,
        superblock: Superblock,
        loaded: LoadedStore,
        external_snapshots: Mapping[str, Source] | None,
    ) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.engine: Engine = loaded.engine
        self.events: list[Event] = []
        self.closers: list[Callable[[], None]] = []
        self.jobs: Any = None
        self.damaged: list[DamagedBlob] = []
        # snapshots whose last durable step is still to be done
        self.unfinished: list[Lvol] = []
        self.replayed = loaded.contents.replayed
        # (object, text): what opening for writing put right
        self.repairs: list[tuple[str, str]] = []
        self.externals = ExternalSnapshots(self, external_snapshots)
        self._device = device
        self._superblock = superblock
        self._lvols = LvolTable()
        self._failure: OSError | None = None
        # writes that the device had no space for, before begin_asking
        self._refused = 0
        self._closed = False
        # the store's own blob: its name and uuid
        self._metadata = BlobMetadata()
        self._blob: Blob | None = None
        self._damaged_ids = {blob.id for blob in loaded.contents.damaged}
        self._unreadable_pages = bool(loaded.contents.unreadable)
        self._damaged_parents = {blob.link("SNAP") for blob in loaded.contents.damaged}
        self._take_over(loaded)

    # -- opening and closing

    @classmethod
    def create(
        cls,
        path: str,
        *,
        size: int | None = None,
        cluster_size: int = 1 << 20,
        name: str = "lvs0",
        block_size: int | None = None,
        force: bool = False,
        md_ratio: int = 100,
        md_page_size: int = PAGE,
        discard: bool = True,
        external_snapshots: Mapping[str, Source] | None = None,
    ) -> Lvstore:
        """Makes a store on a file or block device and opens it.

        size: bytes; needed for a file that does not exist, and extends a shorter one.
        block_size: 512 or 4096 (the default for files) bytes. md_ratio: metadata pages per
        100 clusters. md_page_size: bytes apart that metadata pages lie, a power of two; each
        has 4096 bytes of content. discard: give back the space that the device takes on its
        host. Raises OSError: EEXIST when the device holds anything (unless `force`), EINVAL for
        sizes that cannot be, ENOSPC when it is too small, EBUSY when it is in use.
        """
        format_store(
            path,
            size=size,
            cluster_size=cluster_size,
            name=name,
            block_size=block_size,
            force=force,
            md_ratio=md_ratio,
            md_page_size=md_page_size,
            discard=discard,
        )
        return cls.open(path, external_snapshots=external_snapshots)

    @classmethod
    def open(
        cls,
        path: str,
        *,
        read_only: bool = False,
        external_snapshots: Mapping[str, Source] | None = None,
        force_replay: bool = False,
    ) -> Lvstore:
        """Opens a store; after a crash it is replayed and interrupted operations repaired.

        external_snapshots: for each external snapshot id the path of a file or device, or a
        read-only lvol of another store; lvols whose one is missing open as degraded.
        force_replay: read all metadata instead of believing the masks of a cleanly closed
        store. Raises FormatError (an OSError) for anything that is not a store, OSError(EBUSY)
        when it is in use.
        """
        device = Device(path, read_only=read_only)
        try:
            superblock = _read_superblock(device, path)
            loaded = load_store(device, superblock, read_only=read_only, force_replay=force_replay)
            try:
                return cls(path, device, superblock, loaded, external_snapshots)
            except BaseException:
                loaded.engine.close()
                raise
        except BaseException:
            device.close()
            raise

    def _take_over(self, loaded: LoadedStore) -> None:
        contents = loaded.contents
        if contents.problem:
            log.warning("store %r was replayed: %s", self.path, contents.problem)
        for stored in contents.damaged:
            log.warning("store %r: %s: %s", self.path, stored.title, stored.damage)
            self.damaged.append(DamagedBlob(stored.id, stored.name, stored.damage or ""))
        super_blob = self._superblock.super_blob
        if super_blob in loaded.blobs:
            self._blob = loaded.blobs[super_blob]
            self._metadata = contents.blobs[super_blob].metadata
        for blob_id, blob in loaded.blobs.items():
            if blob_id != super_blob:
                self._lvols.add(self._lvol_from_disk(blob, contents.blobs[blob_id]))
        with self.engine.exclusive():
            for blob_id, lvol in self._lvols.by_id.items():
                parent_id = contents.blobs[blob_id].link("SNAP")
                if parent_id is not None:
                    lvol.link_parent(self._lvols.by_id[parent_id])
                elif (snapshot_id := external_id_of(lvol.metadata)) is not None:
                    lvol.link_external(self.externals.find(snapshot_id))
            if not self.read_only:
                self._repair(loaded)
        if not self.read_only and FLUSH_INTERVAL:
            self.engine.start_flusher(FLUSH_INTERVAL)

    def _lvol_from_disk(self, blob: Blob, stored: StoredBlob) -> Lvol:
        """Names that cannot be shown, or are taken, give way to the uuid."""
        lvol_uuid = uuid_field(stored.metadata) or f"{self.uuid}_{blob.id}"
        name = stored.name or ""
        if not fits_a_file_name(name) or self._lvols.named(name) is not None:
            log.warning("store %r: name %r is shown as %r", self.path, name, lvol_uuid)
            name = lvol_uuid
        return Lvol(self, blob, stored.metadata, name, lvol_uuid, frozen=is_frozen(stored))

    def _repair(self, loaded: LoadedStore) -> None:
        """Makes durable what the crash left undone, in an order that can crash again."""
        for blob_id in sorted(loaded.shared_with_parent):
            lvol = self._lvols.by_id[blob_id]
            if lvol.parent is not None:
                lvol.blob.drop_shared_with(lvol.parent.blob)
                self.engine.persist(lvol.blob)
                self._repaired(f"lvol {lvol.name!r}", "parted from clusters of its parent")
        for case in loaded.interrupted:
            if case.keep and case.snapshot.id in loaded.blobs:
                self.engine.persist(loaded.blobs[case.snapshot.id])
                self._repaired(case.snapshot.title, f"kept; its {case.operation} was interrupted")
        removed = {case.snapshot.id: case for case in loaded.interrupted if not case.keep}
        for blob in loaded.removals:
            case = removed[blob.id]
            self.engine.destroy(blob)
            self._repaired(case.snapshot.title, f"removed; its {case.operation} was interrupted")

    def _repaired(self, subject: str, text: str) -> None:
        self.repairs.append((subject, text))
        log.info("store %r: %s: %s", self.path, subject, text)

    def close(self) -> None:
        """Flushes, writes the masks and marks the store clean. Raises OSError if that fails;
        the store is closed all the same, and the next open replays it."""
        # Without the lock: a closer may wait for a job that needs it to end.
        for closer in list(self.closers):
            closer()
        with self.lock:
            if self._closed:
                return
            self._closed = True
            try:
                if not self.read_only:
                    self.engine.stop_flusher()
                    self.engine.flush()
                    if self._failure is not None:
                        raise self._failure
                    if self.unfinished:
                        self._finish()
                    self._mark_clean()
            finally:
                self.engine.close()
                self.externals.close()
                self._device.close()

    def _finish(self) -> None:
        with self.engine.exclusive():
            for lvol in self.unfinished:
                if not lvol.deleted:
                    self.engine.persist(lvol.blob)

    def _mark_clean(self) -> None:
        on_disk = self._device.pread(PAGE, 0)
        if not self.replayed and int.from_bytes(on_disk[16:20], "little") == 1:
            return
        blob_ids = {*self._lvols.by_id, *self._damaged_ids}
        if self._blob is not None:
            blob_ids.add(self._blob.id)
        # With a damaged blob or page the next open has to look at everything again; the masks are
        # there to keep what they have as used from being handed out.
        clean = not self._damaged_ids and not self._unreadable_pages
        mark_clean(self._device, self.engine, self._superblock, blob_ids, clean=clean)

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Lvstore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    # -- what it is

    @property
    def name(self) -> str:
        return text_field(self._metadata, "name") or ""

    @property
    def uuid(self) -> str:
        return uuid_field(self._metadata) or "00000000-0000-0000-0000-000000000000"

    @property
    def cluster_size(self) -> int:
        return self._superblock.cluster_size

    @property
    def block_size(self) -> int:
        return self._superblock.io_unit_size

    @property
    def size(self) -> int:
        """Bytes of the device that the store uses."""
        return self._superblock.size

    @property
    def total_clusters(self) -> int:
        """Clusters for data; those of the metadata are not counted."""
        return self.engine.total_clusters - self.engine.metadata_clusters

    @property
    def free_clusters(self) -> int:
        return self.engine.free_clusters

    @property
    def free_pages(self) -> int:
        """Metadata pages that lvols may still take."""
        return max(0, self.engine.free_pages - self.engine.reserved_pages)

    @property
    def read_only(self) -> bool:
        return self.engine.read_only

    @property
    def lvols(self) -> list[Lvol]:
        with self.lock:
            return sorted(self._lvols, key=lambda lvol: lvol.name)

    @property
    def volumes(self) -> list[Lvol]:
        return [lvol for lvol in self.lvols if not lvol.is_snapshot]

    @property
    def snapshots(self) -> list[Lvol]:
        return [lvol for lvol in self.lvols if lvol.is_snapshot]

    def get(self, ref: str) -> Lvol:
        """The lvol of this name, uuid or "lvs/name". Raises LvolNotFound (ENOENT)."""
        with self.lock:
            prefix, _, rest = ref.partition("/")
            name = rest if rest and prefix == self.name else ref
            lvol = self._lvols.named(name) or self._lvols.with_uuid(ref)
            if lvol is not None:
                return lvol
            for damaged in self.damaged:
                if damaged.name == name:
                    raise OSError(
                        errno.EIO,
                        f"lvol {name!r} of store {self.name!r} is damaged: {damaged.reason}",
                    )
        raise LvolNotFound(f"no lvol {ref!r} in store {self.name!r}")

    # -- changes

    @contextmanager
    def changing(self) -> Iterator[None]:
        """The lock, held by a control operation on a store that can be changed."""
        with self.lock:
            self.check_open()
            if self.read_only:
                raise OSError(errno.EROFS, f"store {self.name!r} is open read-only")
            if self._failure is not None:
                raise OSError(
                    errno.EIO,
                    f"store {self.name!r} failed before ({self._failure}); close it, repair the "
                    "device and open it again",
                )
            self.begin_asking()
            yield

    def check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, f"store {self.path!r} is closed")

    def fail(self, error: OSError) -> None:
        """After this only reading works: disk and memory may differ."""
        if self._failure is None:
            log.error("store %r failed: %s", self.path, error)
            self._failure = error

    def persist(self, blob: Blob, head: bytes) -> None:
        """Makes a blob durable with a new head; to be called in engine.exclusive().

        For want of space (ENOSPC, ENOMEM) nothing has changed, on disk or in the head. Any
        other error fails the store: what reached the disk is not known.
        """
        before = blob.head
        blob.set_head(head)
        try:
            self.engine.persist(blob)
        except OSError as error:
            blob.set_head(before)
            if error.errno not in {errno.ENOSPC, errno.ENOMEM}:
                self.fail(error)
            raise

    def add_lvol(self, blob: Blob, metadata: BlobMetadata, name: str) -> Lvol:
        """Takes a blob that was just made into the list of lvols."""
        lvol = Lvol(self, blob, metadata, name, uuid_field(metadata) or "")
        self._lvols.add(lvol)
        return lvol

    def remove_lvol(self, lvol: Lvol) -> None:
        self._lvols.remove(lvol)

    def rename_lvol(self, lvol: Lvol, name: str) -> None:
        """In memory: it is found by its new name from now on."""
        self._lvols.rename(lvol, name)

    def has_damaged_children(self, lvol: Lvol) -> bool:
        return lvol.id in self._damaged_parents

    def notify(self, kind: str, lvol: Lvol) -> None:
        for callback in list(self.events):
            callback(kind, lvol)

    def check_new_name(self, name: str) -> None:
        check_name(name, "lvol")
        if self._lvols.named(name) is not None:
            raise OSError(errno.EEXIST, f"lvol {name!r} exists already in store {self.name!r}")

    def clusters_for(self, size: int, subject: str) -> int:
        """How many clusters `size` bytes take. Raises OSError(EINVAL, EFBIG)."""
        if size < 0:
            raise OSError(errno.EINVAL, f"size {size} of {subject}: it must not be negative")
        count = -(-size // self.cluster_size)
        if count > MAX_CLUSTERS:
            raise OSError(
                errno.EFBIG,
                f"size {size} of {subject} is {count} clusters; at most {MAX_CLUSTERS} "
                f"({MAX_CLUSTERS * self.cluster_size} bytes) are supported",
            )
        return count

    def create_volume(self, name: str, size: int, *, thick: bool = False) -> Lvol:
        """A new volume of at least `size` bytes, all zeros; 0 is allowed.

        A thin one (the default) may be larger than the store. Raises OSError: EEXIST, EINVAL
        or ENAMETOOLONG for the name, EINVAL or EFBIG for the size, ENOSPC.
        """
        with self.changing():
            self.check_new_name(name)
            count = self.clusters_for(size, f"lvol {name!r}")
            if thick and count > self.free_clusters:
                raise self.is_full(f"lvol {name!r} needs {count} clusters")
            metadata = BlobMetadata(xattrs=new_identity(name))
            if not thick:
                metadata.invalid |= Invalid.THIN
            with self.engine.exclusive():
                blob = self.create_blob(count, metadata, name)
                self.persist_new(blob)
            lvol = self.add_lvol(blob, metadata, name)
            self.notify("created", lvol)
            return lvol

    def create_external_clone(
        self, name: str, source: Source, *, snapshot_id: str | None = None
    ) -> Lvol:
        """A thin volume that shows, until written to, the file or block device at a path, or a
        read-only lvol of another store.

        snapshot_id: what the store keeps to know it by (default: a uuid made of the path, the
        lvol's uuid). Its size has to be a multiple of the cluster size (EINVAL).
        """
        with self.changing():
            self.check_new_name(name)
            snapshot_id = snapshot_id or default_external_id(source)
            field = external_id_field(snapshot_id)
            external = self.externals.add(snapshot_id, source, self.cluster_size)
            count = self.clusters_for(external.size, f"lvol {name!r}")
            metadata = BlobMetadata(xattrs=new_identity(name), internal={"EXTSNAP": field})
            metadata.invalid |= Invalid.THIN | Invalid.EXTERNAL_SNAPSHOT
            with self.engine.exclusive():
                blob = self.create_blob(count, metadata, name)
                self.persist_new(blob)
                lvol = self.add_lvol(blob, metadata, name)
                lvol.link_external(external)
            self.notify("created", lvol)
            return lvol

    def create_blob(self, count: int, metadata: BlobMetadata, name: str) -> Blob:
        """engine.create_blob, with an error that says what there is no room for."""
        thin = bool(metadata.invalid & Invalid.THIN)
        try:
            return self.engine.create_blob(count, thin=thin, head=metadata.pack_head())
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise self.no_space(f"lvol {name!r} has no room") from error
            raise

    def persist_new(self, blob: Blob) -> None:
        """The first persist of a blob; on an error it is as if it had never been."""
        try:
            self.persist(blob, blob.head)
        except OSError as error:
            self.engine.discard_unpersisted(blob)
            if error.errno == errno.ENOSPC:
                raise self.no_space("a new lvol needs a metadata page") from error
            raise

    def no_space(self, what: str) -> OSError:
        """After ENOSPC: the store is full, or the file system that it is on has been, since
        begin_asking or for good."""
        if self.engine.failed or self._device.counters["no_space"] > self._refused:
            return self.host_is_full(what)
        return self.is_full(what)

    def begin_asking(self) -> None:
        """What the host has refused before, perhaps to a mount, is no reason for what follows."""
        self._refused = self._device.counters["no_space"]

    def host_is_full(self, what: str) -> OSError:
        self.begin_asking()
        again = "; then open the store again" if self.engine.failed else ""
        return OSError(
            errno.ENOSPC,
            f"{what}, but the file system that {self.path} is on is full, or a quota there is used "
            f"up: free space there{again}",
        )

    def is_full(self, what: str) -> OSError:
        """For what is known to need more than there is."""
        return OSError(
            errno.ENOSPC,
            f"{what}, but store {self.name!r} has {self.free_clusters} free clusters and "
            f"{self.free_pages} free metadata pages; delete lvols or grow the store",
        )

    def rename(self, name: str) -> None:
        """Gives the store another name; its uuid stays."""
        with self.changing():
            check_name(name, "store")
            if self._blob is None:
                raise OSError(
                    errno.EIO, f"store {self.path!r} cannot be renamed: its own blob is damaged"
                )
            metadata = self._metadata.copy()
            metadata.xattrs["name"] = renamed_field(name)
            with self.engine.exclusive():
                self.persist(self._blob, metadata.pack_head())
            self._metadata = metadata

    def grow(self) -> None:
        """Takes over what the file or device has gained in size since.

        Raises OSError(ENOSPC) when the store was made without room for that many clusters.
        """
        with self.changing():
            size = self._device.refresh_size()
            if size < self._superblock.size:
                raise OSError(
                    errno.ENOSPC,
                    f"{self.path!r} has shrunk to {size} bytes; the store needs "
                    f"{self._superblock.size}",
                )
            grown = grown_superblock(self._superblock, size)
            if grown.total_clusters == self._superblock.total_clusters:
                return
            # A file that was just extended may lose that in a power cut, and a store that is
            # larger than its file does not open.
            self._device.flush()
            with self.engine.exclusive():
                self.engine.grow(grown.total_clusters)
                try:
                    self.engine.write_superblock(grown.pack())
                except OSError as error:
                    self.fail(error)
                    raise
            self._superblock = grown

    def flush(self) -> None:
        """Everything written before the call is durable when it returns."""
        self.check_open()
        if not self.read_only:
            self.engine.flush()


def _read_superblock(device: Device, path: str) -> Superblock:
    if device.size == 0:
        raise FormatError(f"store {path!r}", "the file is empty; lvolfs create makes a store of it")
    try:
        return read_superblock(device, path)
    except FormatError as error:
        if "no blobstore is here" not in error.problem:
            raise
        found = name_content(device.pread(min(EMPTY_SIZE, device.size), 0))
        shown = "zeros" if found is None else found
        raise FormatError(error.subject, f"{error.problem}; it holds {shown}") from None
