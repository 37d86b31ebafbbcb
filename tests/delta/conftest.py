"""Stores with small clusters, and lvols filled with data that names its place."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 * 1024

MakeStore = Callable[..., Lvstore]


def cluster_of(tag: object, length: int = CLUSTER) -> bytes:
    """One cluster of bytes that no other tag gives."""
    seed = hashlib.sha256(repr(tag).encode()).digest()
    return (seed * (length // len(seed) + 1))[:length]


def bits(data: bytes) -> list[int]:
    return [i for i in range(len(data) * 8) if data[i >> 3] >> (i & 7) & 1]


def finish(job):
    """Waits for a job that has to succeed; its result."""
    assert job.wait(60), job.as_dict()
    job.raise_if_failed()
    return job.result


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    opened: list[Lvstore] = []

    def make(name: str, *, clusters: int = 400, cluster_size: int = CLUSTER) -> Lvstore:
        store = Lvstore.create(
            str(tmp_path / f"{name}.img"),
            size=clusters * cluster_size,
            cluster_size=cluster_size,
            name=name,
        )
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Lvstore:
    return make_store("lvs0")


@pytest.fixture
def other(make_store: MakeStore) -> Lvstore:
    return make_store("lvs1")


def fill(lvol, clusters, tag="a"):
    """Writes each of the clusters in full."""
    size = lvol.store.cluster_size
    for c in clusters:
        lvol.pwrite(cluster_of((tag, c), size), c * size)
