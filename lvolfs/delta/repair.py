"""Clusters whose bytes are no longer what was registered, written anew from another copy."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lvolfs._native.checksum import crc64, xxh3
from lvolfs.delta.checksums import table

if TYPE_CHECKING:
    from lvolfs._native.endpoint import Endpoint
    from lvolfs.lvstore.lvol import Lvol

_HASHES = {"crc64": crc64, "xxh3": xxh3}


@dataclass
class RepairReport:
    """refused: clusters for which the other copy does not have what was registered, either."""

    repaired: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)


def repair(lvol: Lvol, clusters: Sequence[int], source: Endpoint) -> RepairReport:
    """Writes own clusters of a snapshot from `source`, which holds them in this order.

    Only content with the registered checksum is written, so it does not matter whose copy it
    is. Durable when it returns. OSError: ENODATA for a cluster without a registered checksum,
    ERANGE for one past the end, EROFS, EBUSY, EIO when the device does not take it.
    """
    store = lvol.store
    with store.changing(), lvol.claim("repair"):
        found = table(lvol)
        size = store.cluster_size
        report = RepairReport()
        for position, cluster in enumerate(clusters):
            if cluster >= lvol.num_clusters:
                raise OSError(
                    errno.ERANGE,
                    f"cluster {cluster} of lvol '{lvol.name}': it has {lvol.num_clusters}",
                )
            registered = None if found is None else found.checksum(cluster)
            own = int.from_bytes(lvol.blob.clusters(cluster, 1), "little")
            if found is None or registered is None or not own:
                raise OSError(
                    errno.ENODATA,
                    f"no checksum of cluster {cluster} of lvol '{lvol.name}' is registered; only "
                    "a rebuild can repair it",
                )
            take = _HASHES[found.algorithm]
            content = source.pread(size, position * size)
            if take(content) != registered:
                report.refused.append(cluster)
                continue
            where = own * size
            store.engine.device.pwrite(content, where)
            if take(store.engine.device.pread(size, where)) != registered:
                raise OSError(
                    errno.EIO,
                    f"cluster {cluster} of lvol '{lvol.name}' was written, but {store.path} gives "
                    "something else back; replace the device",
                )
            report.repaired.append(cluster)
        if report.repaired:
            store.engine.device.flush()
            for shown_by in _with_descendants(lvol):
                store.notify("changed", shown_by)
    return report


def _with_descendants(lvol: Lvol) -> Iterator[Lvol]:
    waiting = [lvol]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += each.children
