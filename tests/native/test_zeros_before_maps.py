"""Clusters that are zeroed instead of written: durable before the map that names them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs._native.blob import Blob
from lvolfs._native.engine import Engine
from tests.crash.write_log import DISCARD, FLUSH, WRITE, ZERO, Entry, read_logs
from tests.native.conftest import CLUSTER, HEAD, MD_START

RUN_LENGTH_HEAD = HEAD[:5] + b"\0" + HEAD[6:]


def thick(engine: Engine) -> Blob:
    with engine.exclusive():
        blob = engine.create_blob(0, thin=False, head=HEAD)
        engine.persist(blob)
    return blob


def run_length(engine: Engine) -> Blob:
    """As older SPDK made them: the first page itself lists the clusters."""
    with engine.exclusive():
        page = 50  # of 64, nobody's
        return engine.adopt_blob(
            1 << 32 | page,
            num_clusters=0,
            clusters={},
            extent_pages={},
            chain=[page],
            head=RUN_LENGTH_HEAD,
            thin=False,
            read_only=False,
            rle=True,
        )


def zeros_that_a_map_outruns(engine: Engine, log: Path, change: Callable[[], None]) -> list[int]:
    """Offsets of zeroed clusters after which metadata are written before a flush comes."""
    assert engine.device.size == 64 * CLUSTER
    engine.device.record(str(log))
    change()
    entries = read_logs([log])
    metadata = (MD_START + engine.md_len) * engine.page_size
    assert any(e.kind in (ZERO, WRITE) and e.offset >= metadata for e in entries), "no zeros"
    waiting: list[int] = []
    outrun: list[int] = []
    for entry in entries:
        if entry.kind == FLUSH:
            waiting = []
        elif entry.kind != DISCARD and entry.offset >= metadata:
            waiting.append(entry.offset)
        elif names_clusters(entry):
            outrun += waiting
    return outrun


def names_clusters(entry: Entry) -> bool:
    """A metadata page that is not zeros: all that are written here name clusters, or what does."""
    return (
        entry.kind == WRITE
        and entry.offset >= MD_START * 4096
        and bool(entry.data[:8].strip(b"\0"))
    )


def fill(engine: Engine) -> None:
    """So that what is freed next is no hole in the file, and has to be zeroed."""
    with engine.exclusive():
        blob = engine.create_blob(48, thin=True, head=HEAD)
        engine.persist(blob)
    blob.pwrite(b"old" * (16 * CLUSTER), 0)
    engine.flush()
    with engine.exclusive():
        engine.destroy(blob)
    blob_file = Path(engine.device.path)
    with blob_file.open("r+b") as file:
        for cluster in range(engine.metadata_clusters, 64):
            file.seek(cluster * CLUSTER)
            file.write(b"old")


@pytest.mark.parametrize("make", [thick, run_length])
@pytest.mark.parametrize("fault", [None, "no-data-barrier"])
def test_zeros_are_durable_before_the_map(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Engine], Blob],
    fault: str | None,
) -> None:
    """In the change itself, which has no other data to make durable; with the barrier left out
    this has to show."""
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    fill(engine)
    blob = make(engine)
    if fault:
        engine.seed_fault(fault)

    def grow() -> None:
        with engine.exclusive():
            blob.resize(8)
            engine.persist(blob)

    outrun = zeros_that_a_map_outruns(engine, tmp_path / "log", grow)
    assert bool(outrun) == bool(fault)
    assert blob.pread(8 * CLUSTER, 0) == bytes(8 * CLUSTER)
