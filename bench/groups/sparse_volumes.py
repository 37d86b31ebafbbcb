"""What a sparse volume of 1 GiB to 16 TiB costs, by its size: 16 clusters are written in each.

What should only depend on what is there, not on how large it might become.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.case import Case, Sample
from bench.groups.stores import SIZES, TIB, memory_of, milliseconds, mount_seconds, open_seconds
from bench.peers.block_files import scratch_directory
from bench.settings import GIB, Settings
from lvolfs import Job, Lvstore

WRITTEN = 16


class SparseStores:
    """Closed stores with the snapshot "s", its clone "c" and nothing else, made on first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, size: int) -> Path:
        path = self.directory / f"sparse{size // GIB}"
        if not path.exists():
            with Lvstore.create(str(path), size=2 * GIB) as store:
                volume = store.create_volume("volume", size)
                for number in range(WRITTEN):
                    volume.pwrite(b"x" * 4096, number * (size // WRITTEN))
                volume.flush()
                volume.snapshot("s")
        return path

    @property
    def empty(self) -> Path:
        path = self.directory / "empty"
        if not path.exists():
            Lvstore.create(str(path), size=2 * GIB).close()
        return path


def complete(job: Job) -> None:
    job.wait()
    job.raise_if_failed()


def with_store(act: Callable[[Lvstore], float]) -> Callable[[Path], Sample]:
    def measure(path: Path) -> Sample:
        with Lvstore.open(str(path)) as store:
            return {"value": act(store)}

    return measure


def snapshot_milliseconds(store: Lvstore) -> float:
    found = milliseconds(lambda: store.get("volume").snapshot("new"))
    store.get("new").delete()
    return found


def clone_milliseconds(store: Lvstore) -> float:
    found = milliseconds(lambda: store.get("s").clone("new"))
    store.get("new").delete()
    return found


def register_milliseconds(store: Lvstore) -> float:
    return milliseconds(lambda: complete(store.get("s").register_checksums()))


def copy_milliseconds(store: Lvstore) -> float:
    """Into a new thin volume of the same store."""
    snapshot = store.get("s")
    copy = store.create_volume("copy", snapshot.size)
    found = milliseconds(lambda: complete(snapshot.shallow_copy(copy)))
    copy.delete()
    return found


@contextlib.contextmanager
def open_group(settings: Settings) -> Iterator[list[Case]]:
    with scratch_directory(settings.directory) as directory:
        stores = SparseStores(directory)

        def case(
            key: str,
            title: str,
            measure: Callable[[Path], Sample],
            *,
            unit: str = "ms",
            most: int = 3,
        ) -> Case:
            return Case(
                f"{key}.sparse",
                f"{title}, sparse volume of",
                unit,
                tuple(SIZES),
                lambda name: measure(stores.path(SIZES[name])),
                "less",
                dict.fromkeys(SIZES, most),
            )

        def opening(path: Path) -> Sample:
            return {"value": 1e3 * open_seconds(path)["value"]}

        def mounting(path: Path) -> Sample:
            return {"value": 1e3 * mount_seconds(path, directory / "mnt")["value"]}

        def memory(name: str) -> Sample:
            used, _ = memory_of(stores.empty, stores.path(SIZES[name]))
            return {"value": used / 2**20 / (SIZES[name] / TIB), "bytes": float(used)}

        cases = [
            case("snapshot", "snapshot", with_store(snapshot_milliseconds)),
            case("clone", "clone", with_store(clone_milliseconds)),
            case("register", "registering 16 clusters", with_store(register_milliseconds)),
            case("copy", "shallow copy of 16 clusters", with_store(copy_milliseconds)),
            case("open", "opening its store", opening),
        ]
        if not settings.quick:
            cases += [
                case("mount", "mount command until it answers", mounting, most=2),
                Case(
                    "memory.sparse",
                    "memory that opening takes, sparse volume of",
                    "MiB/TiB",
                    ("1 TiB", "16 TiB"),
                    memory,
                    "less",
                    dict.fromkeys(SIZES, 2),
                ),
            ]
        yield cases
