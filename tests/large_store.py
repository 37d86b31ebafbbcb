"""A store with very many owned clusters, of which only the metadata are ever written."""

from pathlib import Path

from lvolfs.lvstore.store import Lvstore

MIB = 1 << 20


def make_large_store(path: Path, volumes: int, clusters: int) -> None:
    """`volumes` thick volumes of `clusters` clusters each on a sparse file; closed cleanly.

    They were made at half the size and grown later, so each map is in two pieces.
    """
    size = (volumes * clusters * 102 // 100 + 4000) * MIB
    with Lvstore.create(str(path), size=size, cluster_size=MIB) as store:
        for number in range(volumes):
            store.create_volume(f"v{number}", clusters // 2 * MIB, thick=True)
        for number in range(volumes):
            store.get(f"v{number}").resize(clusters * MIB)
