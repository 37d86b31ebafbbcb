"""Registered checksums that cannot be believed: found by a check, dropped by its repair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvolfs.delta.checksum_table import ALGORITHMS, CHECKSUM_XATTR, is_table_xattr
from lvolfs.delta.checksums import read_table

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm
    from lvolfs.lvstore.lvol import Lvol
    from lvolfs.lvstore.store import Lvstore


@dataclass(frozen=True)
class UnreadableTable:
    lvol: Lvol
    algorithm: Algorithm
    problem: str


def unreadable_tables(store: Lvstore) -> Iterator[UnreadableTable]:
    """Nothing is changed. A table that is not there is none of them."""
    for lvol in store.lvols:
        for algorithm in ALGORITHMS:
            _, problem = read_table(lvol, algorithm)
            if problem is not None:
                yield UnreadableTable(lvol, algorithm, problem)


def drop(table: UnreadableTable) -> None:
    """Forgets the table; the data stay. Durable when it returns; OSError as for any change."""
    lvol, algorithm = table.lvol, table.algorithm
    names = [name for name in lvol.metadata.xattrs if is_table_xattr(name, algorithm)]
    records = None
    if algorithm == "crc64":
        records = b""
        if CHECKSUM_XATTR in lvol.metadata.xattrs:
            names.append(CHECKSUM_XATTR)
    lvol.set_reserved_xattrs(dict.fromkeys(names), records)
