"""A small bare store: an engine over a sparse file, without lvolstore metadata."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs._native.blob import Blob
from lvolfs._native.device import Device
from lvolfs._native.engine import Engine

CLUSTER = 64 * 1024
MD_START = 4

# A FLAGS descriptor: thin provisioning and extent table.
HEAD = struct.pack("<BIQQQ", 3, 24, 0b101, 0, 0)

MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[MakeEngine]:
    opened: list[tuple[Engine, Device]] = []

    def make(
        *,
        clusters: int = 64,
        cluster_size: int = CLUSTER,
        md_len: int = 64,
        page_size: int = 4096,
        path: Path | None = None,
        read_only: bool = False,
    ) -> Engine:
        target = path or tmp_path / "store.img"
        if not target.exists():
            target.touch()
            with target.open("r+b") as file:
                file.truncate(clusters * cluster_size)
                file.write(b"SPDKBLOB")
        device = Device(str(target), read_only=read_only)
        engine = Engine(
            device,
            cluster_size=cluster_size,
            page_size=page_size,
            md_start=MD_START,
            md_len=md_len,
            total_clusters=clusters,
            read_only=read_only,
        )
        opened.append((engine, device))
        return engine

    yield make
    for engine, device in opened:
        engine.close()
        device.close()


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine()


def thin_blob(engine: Engine, num_clusters: int = 32) -> Blob:
    with engine.exclusive():
        blob = engine.create_blob(num_clusters, thin=True, head=HEAD)
        engine.persist(blob)
    return blob


def take_snapshot(engine: Engine, blob: Blob) -> Blob:
    """A parent that owns what the blob owned; without the markers a real snapshot has."""
    with engine.exclusive():
        snapshot = engine.create_blob(blob.num_clusters, thin=True, head=HEAD)
        snapshot.swap_maps(blob)
        snapshot.set_parent(blob.parent)
        engine.persist(snapshot)
        blob.set_parent(snapshot)
        engine.persist(blob)
        snapshot.set_read_only(True)
    return snapshot


def flat(extents: dict[int, bytes], num_clusters: int) -> bytes:
    """A map by extents as Blob.clusters() gives it."""
    parts = (extents.get(extent, bytes(2048)) for extent in range(-(-num_clusters // 512)))
    return b"".join(parts)[: 4 * num_clusters]
