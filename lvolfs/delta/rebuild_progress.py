"""How far an interrupted rebuild got, kept on the lvol that it works in.

    lvolfs.rebuild            JSON: version, layer (uuid of the source's snapshot, "head" for
                              the live head), owned (clusters of it), mode, state, next
    lvolfs.rebuild.todo.K     bitmap of the clusters to copy or unmap, 31,744 to an xattr;
                              delta only, a full copy takes what the snapshot owns

Clusters below `next` are done and durable.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from lvolfs.delta.replica import PROGRESS_XATTR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lvolfs.delta.rebuild_report import Action

VERSION: Final = 1
HEAD: Final = "head"
_PIECE: Final = 3968


@dataclass(frozen=True)
class Progress:
    """state: "merging" (delta: the old snapshot may still exist), "copying", "copied"."""

    layer: str
    owned: int
    mode: Action
    state: str
    next: int = 0
    todo: bytes = b""

    def encode(self) -> bytes:
        fields = asdict(self)
        del fields["todo"]
        return json.dumps({"version": VERSION, **fields}).encode()

    def xattrs(self) -> dict[str, bytes | None]:
        """All of it; `encode` alone is enough when only state or next have changed."""
        found: dict[str, bytes | None] = {PROGRESS_XATTR: self.encode()}
        for number, first in enumerate(range(0, len(self.todo), _PIECE)):
            found[f"{PROGRESS_XATTR}.todo.{number}"] = self.todo[first : first + _PIECE]
        return found


def decode(xattrs: Mapping[str, bytes]) -> Progress | None:
    """None when there is nothing, or nothing that can be gone on from."""
    try:
        fields = json.loads(xattrs[PROGRESS_XATTR])
        if fields.pop("version") != VERSION:
            return None
        prefix = f"{PROGRESS_XATTR}.todo."
        pieces = {
            int(name.removeprefix(prefix)): value
            for name, value in xattrs.items()
            if name.startswith(prefix)
        }
        todo = b"".join(pieces[number] for number in range(len(pieces)))
        found = Progress(**fields, todo=todo)
    except (KeyError, ValueError, TypeError):
        return None
    return found if isinstance(found.next, int) and isinstance(found.layer, str) else None
