"""The contents of MNT/.lvolfs: made up at the moment a file is opened."""

import json
import os
from collections.abc import Callable
from typing import Any

from lvolfs.delta import checksums, jobs
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from lvolfs.report import documents


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode()


class StatusFiles:
    """store.json, lvols.json, jobs.json, metrics, and one file of checksums a snapshot."""

    def __init__(self, store: Lvstore, mountpoint: str, metrics: Callable[[], bytes]) -> None:
        self._store = store
        self._mountpoint = mountpoint
        self._metrics = metrics

    def render(self, name: bytes) -> bytes:
        if name == b"store.json":
            return _json(
                documents.store_document(self._store, mountpoint=self._mountpoint, pid=os.getpid())
            )
        if name == b"lvols.json":
            return _json(documents.of_each(self._store.lvols, documents.lvol_document))
        if name == b"jobs.json":
            return _json([documents.job_document(job) for job in jobs.registry(self._store).list()])
        return self._metrics()

    @staticmethod
    def render_checksums(lvol: Lvol) -> bytes:
        """A JSON line per cluster: index, state, checksum (null where there is none)."""
        table = checksums.table(lvol)
        if table is None:
            return b""
        lines = []
        for cluster in range(table.num_clusters):
            checksum = table.checksum(cluster)
            text = "null" if checksum is None else f'"{checksum:016x}"'
            lines.append(
                f'{{"index": {cluster}, "state": "{table.state(cluster)}", "checksum": {text}}}\n'
            )
        return "".join(lines).encode()
