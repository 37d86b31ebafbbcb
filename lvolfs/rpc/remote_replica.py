"""A store that another process has mounted, as one side of a rebuild.

Questions and changes go to the daemon by RPC, data through the mounted files.
"""

import base64
import errno
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvolfs.delta.checksum_table import ChecksumTable, ClusterChecksums, bits_set, without
from lvolfs.delta.diff import as_ranges
from lvolfs.delta.replica import Layer
from lvolfs.rpc.client import Caller
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.remote_content import decode_values, encode_values, file_of, open_endpoint

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm
    from lvolfs._native.control import Control
    from lvolfs._native.endpoint import Endpoint

_POLL = 0.1
_RELEASE_TIMEOUT = 5.0
# Clusters whose checksums, and runs of clusters that, fit into one request with room to spare.
_KNOWN = 1 << 16
_RUNS = 1 << 15


class RemoteReplica:
    """A mounted store behind a daemon's socket. See lvolfs.delta.replica.Replica."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._store: dict[str, Any] = caller.call("lvolfs_get_store")

    def _call(self, method: str, **params: Any) -> Any:
        """The method's result; its errors as OSError, as a local store raises them."""
        try:
            return self._caller.call(method, **params)
        except RpcError as error:
            raise OSError(error.number or errno.EIO, f"{self.title}: {error}") from error

    def _reference(self, name: str) -> str:
        return f"{self._store['name']}/{name}"

    @property
    def title(self) -> str:
        return f"{self._store['name']} ({self._store['path']})"

    @property
    def location(self) -> str:
        return str(Path(self._store["path"]).resolve())

    @property
    def cluster_size(self) -> int:
        return int(self._store["cluster_size"])

    @property
    def read_only(self) -> bool:
        return bool(self._store["read_only"])

    def layer(self, name: str) -> Layer | None:
        found = [lvol for lvol in self._call("lvolfs_get_lvols") if lvol["name"] == name]
        if not found:
            return None
        lvol = found[0]
        xattrs = self._call("lvolfs_get_xattrs", name=lvol["uuid"], encoding="base64")
        return Layer(
            name=lvol["name"],
            uuid=lvol["uuid"],
            size=lvol["size"],
            num_clusters=lvol["num_clusters"],
            owned=lvol["num_allocated_clusters"],
            parent=lvol["parent"],
            children=tuple(lvol["children"]),
            read_only=lvol["read_only"],
            snapshot=lvol["type"] == "snapshot",
            external=lvol["external_snapshot"] is not None,
            in_use=lvol["open_count"] > 0 or lvol["busy"] is not None,
            xattrs={key: base64.b64decode(value) for key, value in xattrs.items()},
        )

    def fragmap(self, name: str) -> bytes:
        reply = self._call("bdev_lvol_get_fragmap", name=self._reference(name))
        return base64.b64decode(reply["fragmap"])

    def checksums(self, name: str, algorithm: "Algorithm") -> ChecksumTable | None:
        owned = registered = b""
        values: array[int] = array("Q")
        while True:
            page = self._call(
                "lvolfs_get_checksum_table",
                name=self._reference(name),
                algorithm=algorithm,
                first=len(values),
            )
            if page is None or page["snapshot_checksum"] is None:
                return None
            owned += base64.b64decode(page["owned"])
            registered += base64.b64decode(page["registered"])
            values.extend(decode_values(page["checksums"]))
            if len(values) >= page["num_clusters"] or not page["count"]:
                return ChecksumTable(
                    algorithm,
                    self.cluster_size,
                    page["num_clusters"],
                    owned,
                    registered,
                    values,
                    page["snapshot_checksum"],
                )

    def progress(self, name: str) -> dict[str, bytes]:
        found = self._call("lvolfs_get_rebuild_progress", name=self._reference(name))
        return {key: base64.b64decode(value) for key, value in found.items()}

    @contextmanager
    def _endpoint(self, name: str, *, write: bool) -> "Iterator[Endpoint]":
        lvol = self._call("lvolfs_get_lvol", name=self._reference(name))
        path = file_of(self._store, lvol)
        try:
            with open_endpoint(path, lvol["size"], str(path), write=write) as endpoint:
                yield endpoint
        finally:
            self._wait_until_released(lvol)

    def _wait_until_released(self, before: dict[str, Any]) -> None:
        """The kernel tells the daemon of a close later; until then the lvol counts as open."""
        deadline = time.monotonic() + _RELEASE_TIMEOUT
        while time.monotonic() < deadline:
            now = self._call("lvolfs_get_lvol", name=before["uuid"])
            if now["open_count"] <= before["open_count"]:
                return
            time.sleep(0.01)

    @contextmanager
    def reading(self, name: str) -> "Iterator[Endpoint]":
        with self._endpoint(name, write=False) as endpoint:
            yield endpoint

    @contextmanager
    def writing(self, name: str) -> "Iterator[Endpoint]":
        lvol = self._call("lvolfs_get_lvol", name=self._reference(name))
        if lvol["writers"] or lvol["busy"]:
            reason = lvol["busy"] or "it is open for writing"
            raise OSError(errno.EBUSY, f"lvol {name!r} of {self.title} is in use: {reason}")
        with self._endpoint(name, write=True) as endpoint:
            yield endpoint

    def register(
        self,
        name: str,
        algorithm: "Algorithm",
        control: "Control",
        known: ClusterChecksums | None = None,
    ) -> ChecksumTable:
        if known is None:
            self._register(name, algorithm, control, None)
        else:
            self._add_known(name, algorithm, known)
            unknown = as_ranges(list(bits_set(without(self.fragmap(name), known.registered))))
            for at in range(0, len(unknown), _RUNS):
                runs = [[each.start, len(each)] for each in unknown[at : at + _RUNS]]
                self._register(name, algorithm, control, runs)
        found = self.checksums(name, algorithm)
        if found is None:
            raise OSError(errno.EIO, f"the checksums of {name!r} in {self.title} are gone again")
        return found

    def _add_known(self, name: str, algorithm: "Algorithm", known: ClusterChecksums) -> None:
        for first in range(0, len(known.values), _KNOWN):
            bitmap = bytes(known.registered[first // 8 : (first + _KNOWN) // 8])
            if any(bitmap):
                self._call(
                    "lvolfs_add_checksums",
                    name=self._reference(name),
                    algorithm=algorithm,
                    first=first,
                    registered=base64.b64encode(bitmap).decode(),
                    checksums=encode_values(
                        array("Q", (known.values[first + i] for i in bits_set(bitmap)))
                    ),
                )

    def _register(
        self,
        name: str,
        algorithm: "Algorithm",
        control: "Control",
        runs: list[list[int]] | None,
    ) -> None:
        job = self._call(
            "lvolfs_register_checksums",
            name=self._reference(name),
            algorithm=algorithm,
            rate=control.rate,
            clusters=runs,
        )
        while job["state"] == "in progress":
            if control.cancelled:
                self._call("lvolfs_cancel_job", id=job["id"])
            job = self._call("lvolfs_wait_job", id=job["id"], timeout=_POLL)
        if job["state"] != "complete":
            raise OSError(
                job["errno"] or errno.EIO, f"{self.title}: {job['error'] or job['state']}"
            )

    def create_volume(self, name: str, size: int) -> None:
        self._call("lvolfs_create_volume", name=name, size=size)

    def clone(self, snapshot: str, name: str) -> None:
        self._call("bdev_lvol_clone", snapshot_name=self._reference(snapshot), clone_name=name)

    def snapshot(self, name: str, snapshot: str, xattrs: Mapping[str, bytes]) -> None:
        encoded = {key: base64.b64encode(value).decode() for key, value in xattrs.items()}
        self._call(
            "lvolfs_snapshot", name=self._reference(name), snapshot_name=snapshot, xattrs=encoded
        )

    def delete(self, name: str) -> None:
        self._call("bdev_lvol_delete", name=self._reference(name))

    def detach(self, name: str) -> None:
        self._call("bdev_lvol_detach_parent", name=self._reference(name))

    def set_parent(self, name: str, parent: str) -> None:
        self._call(
            "bdev_lvol_set_parent",
            lvol_name=self._reference(name),
            parent_name=self._reference(parent),
        )

    def resize(self, name: str, size: int) -> None:
        self._call("lvolfs_resize", name=self._reference(name), size=size)

    def rename(self, name: str, new_name: str) -> None:
        self._call("bdev_lvol_rename", old_name=self._reference(name), new_name=new_name)

    def set_xattr(self, name: str, xattr: str, value: bytes) -> None:
        encoded = base64.b64encode(value).decode()
        self._call("lvolfs_set_xattr", name=self._reference(name), xattr_name=xattr, value=encoded)

    def set_progress(self, name: str, updates: Mapping[str, bytes | None]) -> None:
        encoded = {
            key: None if value is None else base64.b64encode(value).decode()
            for key, value in updates.items()
        }
        self._call("lvolfs_set_rebuild_progress", name=self._reference(name), updates=encoded)
