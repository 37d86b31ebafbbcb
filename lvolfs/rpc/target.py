"""What the methods work on: the open stores of this process."""

import errno
import os
import uuid as uuids
from typing import TYPE_CHECKING

from lvolfs.rpc.errors import RpcError

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore


class Target:
    """Open stores. mountpoints maps a store's path to where it is mounted, if it is."""

    def __init__(self, stores: "list[Lvstore]", mountpoints: dict[str, str] | None = None) -> None:
        self._stores = list(stores)
        self.mountpoints = dict(mountpoints or {})

    @property
    def stores(self) -> "list[Lvstore]":
        return list(self._stores)

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
        for store in self._stores:
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
