"""What a commit may find in the middle of freeing a cluster, made certain instead of waited for:
the engine commits in that moment."""

import errno
import struct

import pytest

from lvolfs._native.blob import Blob
from lvolfs._native.engine import Engine
from tests.native.conftest import CLUSTER, MakeEngine, thin_blob


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")


def on_the_device(engine: Engine, blob: Blob) -> set[int]:
    """The clusters that its map names there, where a power cut leaves nothing else."""
    extents, bad = engine.load_extents(blob.extent_pages, blob.num_clusters)
    assert not bad
    return {number for part in extents.values() for (number,) in struct.iter_unpack("<I", part)}


def owned(blob: Blob) -> set[int]:
    return {number for (number,) in struct.iter_unpack("<I", blob.clusters())} - {0}


def taken_by_somebody_else(engine: Engine, moment: str) -> set[int]:
    """Frees one of two clusters with that `moment` in between, writes a new one of another blob,
    and tells which of its clusters the first one's durable map names."""
    blob, other = thin_blob(engine), thin_blob(engine)
    blob.pwrite(b"kept" + bytes(CLUSTER), 0)
    engine.flush()
    assert len(owned(blob)) == 2
    engine.seed_fault(moment)
    blob.unmap(0, CLUSTER)
    other.pwrite(b"new", 0)
    return owned(other) & on_the_device(engine, blob)


def test_a_cluster_is_handed_out_only_when_no_durable_map_names_it(engine: Engine) -> None:
    assert taken_by_somebody_else(engine, "commit-in-release") == set()


@pytest.mark.parametrize("mistake", ["free-before-map", "reuse-early"])
def test_that_is_seen_when_it_is_not_so(engine: Engine, mistake: str) -> None:
    assert taken_by_somebody_else(engine, mistake) != set()


def test_what_is_freed_during_a_commit_is_free_after_the_next(make_engine: MakeEngine) -> None:
    """The commit in between has taken the mark that there is something to do: without another
    one the cluster is never given back, and a writer who needs it asks for it for ever."""
    engine = make_engine(clusters=16)
    blob = thin_blob(engine)
    engine.seed_fault("commit-in-release")
    count = engine.free_clusters
    for c in range(count):
        blob.pwrite(b"x", c * CLUSTER)
    engine.flush()
    blob.unmap(0, CLUSTER)
    blob.pwrite(b"y", count * CLUSTER)
    with pytest.raises(OSError, match="write") as info:
        blob.pwrite(b"z", 0)
    assert info.value.errno == errno.ENOSPC
    engine.flush()
    assert on_the_device(engine, blob) == {0, *owned(blob)}
