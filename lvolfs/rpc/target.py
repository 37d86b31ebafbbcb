"""What the methods work on: the base devices and the open stores of this process."""

import contextlib
import errno
import logging
import os
import threading
import uuid as uuids
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from lvolfs.lvstore.external import external_arrived, missing_externals
from lvolfs.rpc.base_bdevs import BaseBdev, BaseBdevs
from lvolfs.rpc.errors import RpcError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from lvolfs._native.device import Device
    from lvolfs.lvstore.external import Source
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore

_log = logging.getLogger(__name__)


class DeviceCounters:
    """What devices have counted since it was begun anew, by the uuid of their bdev. A device
    itself only goes on counting."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[Device, dict[str, int]]] = {}

    def since_reset(self, uuid: str, device: "Device") -> dict[str, int]:
        known, before = self._before.get(uuid, (device, {}))
        counters = device.counters
        if known is not device:
            return counters
        return {name: count - before.get(name, 0) for name, count in counters.items()}

    def reset(self, uuid: str, device: "Device", names: tuple[str, ...]) -> None:
        known, before = self._before.get(uuid, (device, {}))
        counters = device.counters
        kept = before if known is device else {}
        self._before[uuid] = (device, {**kept, **{name: counters[name] for name in names}})


class Mounter(Protocol):
    """Whoever can mount stores in this process; its methods are called in threads."""

    def mount(self, store: "Lvstore", mountpoint: str, options: str) -> None:
        """Returns when the mount answers. OSError names what stands in the way."""

    def unmount(self, mountpoint: str, *, lazy: bool) -> None:
        """Returns when the mount is gone. OSError: EINVAL, EBUSY naming who uses it."""

    def collectors(self, store: "Lvstore") -> "list[Collector]":
        """The metrics of a mounted store; an empty list for one that is not mounted."""


class Target:
    """Open stores. mountpoints maps a store's path to where it is mounted, if it is; mounter,
    where there is one, changes it.

    Every store lies on a base device; one that was opened by its path is given a device of
    that name. on_opened and on_closed are called with each store that comes and goes later.
    """

    def __init__(self, stores: "list[Lvstore]") -> None:
        self._stores: list[Lvstore] = []
        self._own: Lvstore | None = None
        self.mountpoints: dict[str, str] = {}
        self.mounter: Mounter | None = None
        self.bdevs = BaseBdevs()
        self.device_counters = DeviceCounters()
        self.changing = threading.RLock()
        self.on_opened: list[Callable[[Lvstore], None]] = []
        self.on_closed: list[Callable[[Lvstore], None]] = []
        for store in stores:
            self.add_store(store)

    def seen_from(self, store: "Lvstore") -> "Target":
        """The same target for clients that mean this store unless they name another one."""
        view = Target.__new__(Target)
        view.__dict__ = dict(self.__dict__)
        view._own = store
        return view

    @property
    def stores(self) -> "list[Lvstore]":
        return list(self._stores)

    def add_store(self, store: "Lvstore") -> None:
        """Takes over an open store, and makes its base device if there is none. A store that
        on_opened refuses with an OSError is closed."""
        if self.bdevs.of_path(store.path) is None:
            self.bdevs.add(
                BaseBdev(
                    "aio",
                    store.path,
                    str(uuids.uuid4()),
                    store.path,
                    store.block_size,
                    store.size // store.block_size,
                    read_only=store.read_only,
                )
            )
        self._stores.append(store)
        try:
            for callback in self.on_opened:
                callback(store)
        except OSError:
            self._stores.remove(store)
            store.close()
            raise
        self.supply_externals()

    def supply_externals(self) -> None:
        """Gives clones whose external snapshot has come, as a device or with a store, their
        data back."""
        for store in self._stores:
            for snapshot_id in missing_externals(store):
                source = self._external(snapshot_id)
                if source is None:
                    continue
                try:
                    external_arrived(store, snapshot_id, source)
                except OSError as error:
                    _log.warning("clones of %s stay degraded: %s", snapshot_id, error.strerror)

    def _external(self, snapshot_id: str) -> "Source | None":
        bdev = self.bdevs.find(snapshot_id)
        if bdev is not None:
            return bdev.path if self.store_on(bdev) is None else None
        return self.try_lvol(snapshot_id)

    def close_store(self, store: "Lvstore") -> None:
        """Closes a store that is not mounted. OSError(EBUSY) while somebody uses it."""
        if store.path in self.mountpoints:
            where = self.mountpoints[store.path]
            raise OSError(
                errno.EBUSY, f"store '{store.name}' is mounted on {where}; unmount it first"
            )
        for lvol in store.lvols:
            if lvol.open_count or lvol.busy:
                held = lvol.busy or "an open handle"
                raise OSError(errno.EBUSY, f"lvol '{lvol.name}' is in use: {held}")
        self._stores.remove(store)
        try:
            store.close()
        finally:
            for callback in self.on_closed:
                callback(store)

    def close(self) -> None:
        """Closes every store, whatever is under way, and lets go of the base devices. Raises
        the first error once everything has been tried."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.bdevs.close)
            for store in self.stores:
                self._stores.remove(store)
                stack.callback(store.close)

    def store_on(self, bdev: BaseBdev) -> "Lvstore | None":
        """The open store on a base device."""
        for store in self._stores:
            if store.path == bdev.path:
                return store
        return None

    def base_bdev_of(self, store: "Lvstore") -> str:
        """The name of the base device of a store."""
        bdev = self.bdevs.of_path(store.path)
        return store.path if bdev is None else bdev.name

    def find_bdev(self, name: str) -> BaseBdev:
        """By name or uuid. Raises RpcError, "No such device"."""
        bdev = self.bdevs.find(name)
        if bdev is None:
            raise RpcError.no_such_device(f"there is no base bdev {name!r}")
        return bdev

    def find_store(self, uuid: str | None, lvs_name: str | None) -> "Lvstore":
        """SPDK's rule: exactly one of the two is given."""
        if (uuid is None) == (lvs_name is None):
            raise RpcError(
                -errno.EINVAL,
                os.strerror(errno.EINVAL),
                detail="give either uuid or lvs_name",
                number=errno.EINVAL,
            )
        for store in self._stores:
            if uuid == store.uuid if uuid is not None else lvs_name == store.name:
                return store
        raise RpcError.no_such_device(f"there is no lvol store {uuid or lvs_name!r} here")

    def only_store(self, lvs_name: str | None) -> "Lvstore":
        """The named store, or the one there is."""
        if lvs_name is not None:
            return self.find_store(None, lvs_name)
        if self._own is not None:
            return self._own
        if len(self._stores) != 1:
            raise OSError(errno.EINVAL, f"{len(self._stores)} stores are open: give lvs_name")
        return self._stores[0]

    def find_lvol(self, name: str) -> "Lvol":
        """SPDK's rule: a uuid, or lvs/lvol. Raises RpcError, "No such device"."""
        lvol = self.try_lvol(name)
        if lvol is not None:
            return lvol
        known = [f"{store.name}/{each.name}" for store in self._stores for each in store.lvols]
        hint = (
            f"there are {', '.join(known)}" if 0 < len(known) <= 8 else "'ls' lists what there is"
        )
        raise RpcError.no_such_device(f"there is no lvol {name!r}; {hint}")

    def try_lvol(self, name: str) -> "Lvol | None":
        """The lvol that a name stands for, if it stands for one."""
        lvs_name, slash, _ = name.partition("/")
        if not slash and not _is_uuid(name):
            return None
        for store in self.stores:
            if slash and store.name != lvs_name:
                continue
            try:
                return store.get(name)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
        return None


def _is_uuid(text: str) -> bool:
    try:
        return str(uuids.UUID(text)) == text.lower()
    except ValueError:
        return False
