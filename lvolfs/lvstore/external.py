"""External snapshots: files or block devices outside of the store that lvols are clones of.

The store keeps only an id (for SPDK the uuid of a bdev). Which path belongs to it is for
whoever opens the store to say: a path is never taken from the store itself.
"""

import errno
import uuid
from collections.abc import Mapping
from pathlib import Path

from lvolfs._native.device import Device
from lvolfs.blobstore.descriptors import BlobMetadata, decode_name

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


def default_external_id(path: str) -> str:
    """A uuid that stays the same for the same path."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, Path(path).resolve().as_uri()))


class ExternalSnapshots:
    """The external snapshots of one open store, by id. Each is opened once, read-only."""

    def __init__(self, paths: Mapping[str, str] | None = None) -> None:
        self._paths = dict(paths or {})
        self._devices: dict[str, Device] = {}

    def find(self, snapshot_id: str) -> Device | None:
        """The device for an id; None if no path was given for it or nothing is there."""
        if snapshot_id in self._devices:
            return self._devices[snapshot_id]
        path = self._paths.get(snapshot_id)
        if path is None:
            return None
        try:
            device = Device(path, read_only=True)
        except FileNotFoundError:
            return None
        self._devices[snapshot_id] = device
        return device

    def add(self, snapshot_id: str, path: str, cluster_size: int) -> Device:
        """Opens a new one. Its size has to be a multiple of the cluster size (EINVAL)."""
        known = self._paths.get(snapshot_id)
        if known is not None and Path(known).resolve() != Path(path).resolve():
            raise OSError(
                errno.EEXIST, f"external snapshot id {snapshot_id!r} stands for {known!r} already"
            )
        device = self._devices.get(snapshot_id) or Device(path, read_only=True)
        size = device.size
        if not size or size % cluster_size:
            if snapshot_id not in self._devices:
                device.close()
            raise OSError(
                errno.EINVAL,
                f"external snapshot {path!r} has {size} bytes; its size must be a multiple of "
                f"the cluster size, {cluster_size}",
            )
        self._paths[snapshot_id] = path
        self._devices[snapshot_id] = device
        return device

    def remove(self, snapshot_id: str) -> None:
        """Closes its device and forgets where it is; nothing may read from it any more."""
        self._paths.pop(snapshot_id, None)
        device = self._devices.pop(snapshot_id, None)
        if device is not None:
            device.close()

    def path(self, snapshot_id: str) -> str | None:
        return self._paths.get(snapshot_id)

    def close(self) -> None:
        for device in self._devices.values():
            device.close()
        self._devices.clear()
