"""What the methods work on: the base devices and the open stores of this process."""

import errno
import os
import threading
import uuid as uuids
from collections.abc import Callable
from typing import TYPE_CHECKING

from lvolfs.rpc.base_bdevs import BaseBdev, BaseBdevs
from lvolfs.rpc.errors import RpcError

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore


class Target:
    """Open stores. mountpoints maps a store's path to where it is mounted, if it is.

    Every store lies on a base device; one that was opened by its path is given a device of
    that name. on_opened and on_closed are called with each store that comes and goes later.
    """

    def __init__(self, stores: "list[Lvstore]", mountpoints: dict[str, str] | None = None) -> None:
        self._stores: list[Lvstore] = []
        self._own: Lvstore | None = None
        self.mountpoints = dict(mountpoints or {})
        self.bdevs = BaseBdevs()
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
        """Takes over an open store, and makes its base device if there is none."""
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
        for callback in self.on_opened:
            callback(store)

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
        """Closes every store, whatever is under way, and lets go of the base devices."""
        for store in self.stores:
            self._stores.remove(store)
            store.close()
        self.bdevs.close()

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
