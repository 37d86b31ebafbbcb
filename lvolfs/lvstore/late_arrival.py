"""External snapshots that come and go while the store that needs them is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore


def external_clones(store: Lvstore, snapshot_id: str) -> list[Lvol]:
    """The lvols that an external snapshot is the direct parent of."""
    return [lvol for lvol in store.lvols if lvol.external_id == snapshot_id]


def external_arrived(store: Lvstore, snapshot_id: str, path: str) -> list[Lvol]:
    """Gives lvols that were degraded for want of this external snapshot their data back.

    Raises OSError as opening `path` does, EINVAL for a size that cannot be.
    """
    with store.lock:
        missing = [lvol for lvol in external_clones(store, snapshot_id) if lvol.external is None]
        if not missing:
            return []
        device = store.externals.add(snapshot_id, path, store.cluster_size)
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
