"""External snapshots: what lvols are clones of that is not in their store: a file, a block
device, or a read-only lvol of another open store.

The store keeps only an id (for SPDK the uuid of a bdev). What belongs to it is for whoever
opens the store to say: a path is never taken from the store itself.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from lvolfs._native.device import Device
from lvolfs.blobstore.descriptors import BlobMetadata, decode_name

if TYPE_CHECKING:
    from lvolfs.lvstore.holds import OpenToken
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore

Source: TypeAlias = Union[str, "Lvol"]
"""A path, or a read-only lvol of another store."""

EXTERNAL_ID_MAX = 255


def external_id_of(metadata: BlobMetadata) -> str | None:
    """The id of the external snapshot that the blob is a clone of, None without one."""
    value = metadata.internal.get("EXTSNAP")
    return None if value is None else decode_name(value.split(b"\0", 1)[0])


def external_id_field(snapshot_id: str) -> bytes:
    raw = snapshot_id.encode("utf-8")
    if not raw or b"\0" in raw or len(raw) > EXTERNAL_ID_MAX:
        raise OSError(errno.EINVAL, f"external snapshot id {snapshot_id!r} is not valid")
    return raw + b"\0"


def default_external_id(source: Source) -> str:
    """A uuid that stays the same for the same path; an lvol's own."""
    if not isinstance(source, str):
        return source.uuid
    path = source
    return str(uuid.uuid5(uuid.NAMESPACE_URL, Path(path).resolve().as_uri()))


class ExternalSnapshots:
    """The external snapshots of one open store, by id. Each is opened once, read-only.

    An lvol is held open as long as it is used. When its store is closed, `left` is called with
    its id before anything of that store goes away.
    """

    def __init__(self, store: Lvstore, sources: Mapping[str, Source] | None = None) -> None:
        self._store = store
        self._sources = dict(sources or {})
        self._devices: dict[str, Device] = {}
        self._held: dict[str, tuple[Lvol, OpenToken, Callable[[], None]]] = {}

    def find(self, snapshot_id: str) -> Device | None:
        """The device for an id; None if nothing was given for it or nothing is there."""
        if snapshot_id in self._devices:
            return self._devices[snapshot_id]
        source = self._sources.get(snapshot_id)
        if source is None:
            return None
        try:
            device = self._open(snapshot_id, source)
        except FileNotFoundError:
            return None
        self._devices[snapshot_id] = device
        return device

    def add(self, snapshot_id: str, source: Source, cluster_size: int) -> Device:
        """Opens a new one. OSError(EINVAL): its size is no multiple of the cluster size, or it
        is an lvol that can be written or that itself depends on this store."""
        known = self._sources.get(snapshot_id)
        if known is not None and not _same(known, source):
            raise OSError(
                errno.EEXIST,
                f"external snapshot id {snapshot_id!r} stands for {title_of(known)} already",
            )
        device = self._devices.get(snapshot_id)
        opened = device is None
        if device is None:
            device = self._open(snapshot_id, source)
        size = device.size
        if not size or size % cluster_size:
            if opened:
                device.close()
                self._let_go(snapshot_id)
            raise OSError(
                errno.EINVAL,
                f"external snapshot {title_of(source)} has {size} bytes; its size must be a "
                f"multiple of the cluster size, {cluster_size}",
            )
        self._sources[snapshot_id] = source
        self._devices[snapshot_id] = device
        return device

    def _open(self, snapshot_id: str, source: Source) -> Device:
        if isinstance(source, str):
            return Device(source, read_only=True)
        if not source.is_read_only:
            raise OSError(
                errno.EPERM,
                f"lvol {source.name!r} can be written, and so be no external snapshot; use a "
                "snapshot of it",
            )
        # A request of one store waits for the other store: in a circle it would for ever.
        if self._store in {source.store, *source.store.externals.stores()}:
            raise OSError(
                errno.EINVAL,
                f"store {source.store.name!r} itself depends on store {self._store.name!r}",
            )

        def leave() -> None:
            external_left(self._store, snapshot_id)

        self._held[snapshot_id] = (source, source.open(write=False), leave)
        source.store.closers.append(leave)
        return source.blob.as_device(title_of(source))

    def _let_go(self, snapshot_id: str) -> None:
        if snapshot_id in self._held:
            lvol, token, leave = self._held.pop(snapshot_id)
            token.close()
            lvol.store.closers.remove(leave)

    def stores(self) -> set[Lvstore]:
        """The other stores that this one reads from, directly or through others."""
        found: set[Lvstore] = set()
        for lvol, _, _ in self._held.values():
            if lvol.store not in found:
                found |= {lvol.store, *lvol.store.externals.stores()}
        return found

    def remove(self, snapshot_id: str) -> None:
        """Closes its device and forgets what it was; nothing may read from it any more."""
        self._sources.pop(snapshot_id, None)
        device = self._devices.pop(snapshot_id, None)
        if device is not None:
            device.close()
        self._let_go(snapshot_id)

    def close(self) -> None:
        for snapshot_id in list(self._devices):
            self.remove(snapshot_id)


def _same(one: Source, other: Source) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return Path(one).resolve() == Path(other).resolve()
    return one is other


def title_of(source: Source) -> str:
    """A path in quotes, or lvs/lvol."""
    return repr(source) if isinstance(source, str) else f"{source.store.name}/{source.name}"


def external_clones(store: Lvstore, snapshot_id: str) -> list[Lvol]:
    """The lvols that an external snapshot is the direct parent of."""
    return [lvol for lvol in store.lvols if lvol.external_id == snapshot_id]


def missing_externals(store: Lvstore) -> set[str]:
    """Ids of the external snapshots that lvols lack."""
    return {
        lvol.external_id
        for lvol in store.lvols
        if lvol.external_id is not None and lvol.external is None
    }


def external_arrived(store: Lvstore, snapshot_id: str, source: Source) -> list[Lvol]:
    """Gives lvols that were degraded for want of this external snapshot their data back.

    Raises OSError as opening it does, EINVAL for a size that cannot be.
    """
    with store.lock:
        missing = [lvol for lvol in external_clones(store, snapshot_id) if lvol.external is None]
        if not missing:
            return []
        device = store.externals.add(snapshot_id, source, store.cluster_size)
        with store.engine.exclusive():
            for lvol in missing:
                lvol.link_external(device)
        for lvol in missing:
            store.notify("changed", lvol)
        return missing


def external_left(store: Lvstore, snapshot_id: str) -> list[Lvol]:
    """Lets go of an external snapshot: what needs it is degraded from now on."""
    with store.lock:
        clones = [lvol for lvol in external_clones(store, snapshot_id) if lvol.external is not None]
        with store.engine.exclusive():
            for lvol in clones:
                lvol.link_external(None)
            store.externals.remove(snapshot_id)
        for lvol in clones:
            store.notify("changed", lvol)
        return clones
