"""What lvols start: the calls of lvolfs.lvstore.lvol.Lvol that this layer does."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lvolfs.delta.checksums import register
from lvolfs.delta.copy import shallow_copy
from lvolfs.delta.jobs import Job
from lvolfs.lvstore.lvol import Lvol


class Starter:
    """See lvolfs.lvstore.lvol.Starter."""

    @staticmethod
    def register_checksums(
        lvol: Lvol, clusters: Iterable[int | range] | None, algorithm: str
    ) -> Job:
        return register(lvol, clusters, algorithm)

    @staticmethod
    def shallow_copy(
        lvol: Lvol,
        destination: Lvol | str | os.PathLike[str],
        clusters: Iterable[int | range] | None,
        deep: bool,
    ) -> Job:
        return shallow_copy(lvol, destination, clusters, deep)


Lvol.starter = Starter()
