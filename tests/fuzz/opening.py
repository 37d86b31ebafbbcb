"""Opens damaged stores: reads all, changes a little, closes, and opens what is left."""

from pathlib import Path

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from tests.fuzz.byte_choices import ByteChoices
from tests.fuzz.mutated_store import MutatedStore
from tests.fuzz.store_bases import make_bases

MOST_LVOLS = 8


class Opening:
    """The store is a file in `folder`, made anew for every case."""

    def __init__(self, folder: Path) -> None:
        self._bases = make_bases(folder)
        self._path = folder / "store"

    def close(self) -> None:
        self._path.unlink(missing_ok=True)

    def run(self, data: bytes) -> None:
        """Anything but an OSError is a finding, and so is a store that does not open again."""
        choices = ByteChoices(data)
        store = MutatedStore(self._bases[(0, 0, 0, 1, 2)[choices.below(5)]])
        depth = choices.below(4)
        store.apply(choices)
        self._write(store)
        path = str(self._path)
        try:
            check_store(path)
        except OSError:
            # An error of its own is an answer; what follows looks at the same store.
            depth = min(depth, 1)
        self._open(path, depth)

    def _write(self, store: MutatedStore) -> None:
        self._path.unlink(missing_ok=True)
        with self._path.open("wb") as file:
            file.write(store.image[: store.size])
            file.truncate(store.size)

    def _open(self, path: str, depth: int) -> None:
        try:
            store = Lvstore.open(path, read_only=depth == 0)
        except OSError:
            return
        closed = False
        try:
            for lvol in store.lvols[:MOST_LVOLS]:
                _read(lvol)
            if depth > 1:
                for lvol in store.lvols[:MOST_LVOLS]:
                    _change(store, lvol)
            names = {lvol.name for lvol in store.lvols}
            store.close()
            closed = True
        except OSError:
            names = set()
        finally:
            if not closed:
                try:
                    store.close()
                except OSError:
                    names = set()
        if closed and depth:
            with Lvstore.open(path, read_only=True) as again:
                missing = names - {lvol.name for lvol in again.lvols}
            assert not missing, f"{missing} are gone after closing and opening"


def _read(lvol: Lvol) -> None:
    for offset in {0, max(0, lvol.size - 4096), lvol.size // 2 // 4096 * 4096}:
        try:
            lvol.pread(min(4096, lvol.size - offset), offset)
        except OSError:
            continue
    lvol.fragmap(0, min(lvol.num_clusters, 4096))
    for name in lvol.list_xattrs():
        lvol.get_xattr(name)


def _change(store: Lvstore, lvol: Lvol) -> None:
    """What a user might do first; a refusal is fine."""
    steps = (
        lambda: lvol.pwrite(b"5" * 5000, 0),
        lvol.flush,
        lambda: lvol.unmap(0, min(lvol.size, store.cluster_size)),
        lambda: lvol.set_xattr("fuzz", b"x"),
        lambda: store.get(lvol.name).snapshot(f"of-{lvol.id:x}"),
        lambda: store.get(f"of-{lvol.id:x}").delete(),
        lvol.delete,
    )
    for step in steps:
        try:
            step()
        except OSError:
            continue
