"""A store with very many owned clusters, of which only the metadata are ever written."""

import random
from array import array
from pathlib import Path

from lvolfs.delta.checksum_table import CHECKSUM_XATTR, encode_records, encode_xattrs, make_table
from lvolfs.lvstore.lvol import Lvol
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


def give_checksums(lvol: Lvol, algorithm: str) -> None:
    """One for each cluster, as they are stored; nothing was read for them."""
    values = array("Q", random.Random(lvol.name).randbytes(8 * lvol.num_clusters))
    owned = lvol.fragmap()
    made = make_table(algorithm, lvol.store.cluster_size, owned, owned, values)
    lvol.set_read_only()
    if algorithm == "crc64":
        whole = made.snapshot_checksum.to_bytes(8, "little")
        lvol.set_reserved_xattrs({CHECKSUM_XATTR: whole}, encode_records(values))
    else:
        lvol.set_reserved_xattrs(encode_xattrs(made))
