"""What the methods work on: the open stores of this process, and its copy operations."""

import errno
import itertools
import os
import threading
import uuid as uuids
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lvolfs.rpc.errors import RpcError

if TYPE_CHECKING:
    from lvolfs.delta.jobs import Job
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore


@dataclass(frozen=True)
class RefusedCopy:
    """A copy that SPDK would have accepted and then failed: its first check tells why."""

    total: int
    error: int


@dataclass
class Operations:
    """Copy operations under SPDK's ids: counted per process, forgotten once reported."""

    _known: "dict[int, Job | RefusedCopy]" = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, operation: "Job | RefusedCopy") -> int:
        with self._lock:
            operation_id = next(self._ids)
            self._known[operation_id] = operation
        return operation_id

    def get(self, operation_id: int) -> "Job | RefusedCopy":
        with self._lock:
            try:
                return self._known[operation_id]
            except KeyError:
                raise RpcError.no_such_device(
                    f"there is no copy operation {operation_id}, or its end was reported already"
                ) from None

    def forget(self, operation_id: int) -> None:
        with self._lock:
            self._known.pop(operation_id, None)


class Target:
    """Open stores and what goes on in them.

    mountpoints maps a store's path to where it is mounted, for the stores that are.
    """

    def __init__(self, stores: "list[Lvstore]", mountpoints: dict[str, str] | None = None) -> None:
        self._stores = list(stores)
        self.mountpoints = dict(mountpoints or {})
        self.operations = Operations()

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
        """SPDK's rule: a uuid, or lvs/lvol."""
        lvol = self._find(name)
        if lvol is None:
            raise RpcError.no_such_device(f"there is no lvol {name!r}")
        return lvol

    def find_named(self, name: str) -> "Lvol | None":
        """The lvol that a copy's destination names, if it names one."""
        return self._find(name)

    def _find(self, name: str) -> "Lvol | None":
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
