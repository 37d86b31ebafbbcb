"""What SPDK shows of a store after a crash, to be compared with what lvolfs shows of it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from tests.crash.view import Shape, View, windows
from tests.spdk_recovery import RecoveredStore


@lru_cache(maxsize=4)
def _external(path: str) -> bytes:
    return Path(path).read_bytes()


@dataclass(frozen=True)
class SpdkView:
    view: View

    def difference(self, seen: View) -> str | None:
        """What lvolfs shows otherwise, None if there is nothing."""
        ours = self.view
        if ours.name != seen.name:
            return f"the store's name is {ours.name}, for lvolfs {seen.name}"
        for name in sorted(ours.shapes.keys() | seen.shapes.keys()):
            shape, other = ours.shapes.get(name), seen.shapes.get(name)
            if other is not None:
                other = replace(other, checksums=())
            if shape != other:
                return f"lvol {name} is {shape}, for lvolfs {other}"
            if ours.contents[name] != seen.contents[name]:
                return f"lvol {name} shows other data than lvolfs"
        return None


def spdk_view(image: mmap.mmap, externals: Mapping[str, str]) -> SpdkView:
    """Raises NotRecoverableError when SPDK would not get the store to work."""
    store = RecoveredStore(image, {name: _external(path) for name, path in externals.items()})
    shapes = {}
    contents = {}
    for blob in store.lvols():
        parent = blob.link("SNAP")
        external = blob.internal.get("EXTSNAP")
        shapes[blob.name] = Shape(
            len(blob.clusters),
            None if parent is None else store.blobs[parent].name,
            None if external is None else external.split(b"\0")[0].decode(),
            bool(blob.flags[1] & 1),
            bool(blob.flags[0] & 1),
            tuple(sorted(blob.xattrs.items())),
        )
        contents[blob.name] = b"".join(
            store.read(blob, window) for window in windows(len(blob.clusters))
        )
    own = store.blobs[store.super_blob]
    return SpdkView(View(own.name, shapes, contents))
