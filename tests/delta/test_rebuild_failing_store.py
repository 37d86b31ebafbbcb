"""A destination store whose device fails in the middle of a rebuild: the job says so, the source
goes on and has nothing left over, and the rebuild that is begun again finishes and is equal."""

import errno
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from lvolfs.delta.diff import diff
from lvolfs.delta.rebuild import rebuild, start_rebuild
from lvolfs.lvstore.store import Lvstore
from tests.delta.conftest import CLUSTER, cluster_of, fill
from tests.delta.histories import SIZE, assert_same, diverge, source
from tests.torture import count

HEAD = range(28, 34)


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")


def closed(store):
    """What closing it says."""
    try:
        store.close()
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("operation", "code", "diverged"),
    [
        ("write", errno.EIO, False),
        ("flush", errno.EIO, True),
        ("write", errno.ENOSPC, True),
    ],
)
def test_each_request_of_the_destination(tmp_path, operation, code, diverged):
    """From the n-th on all fail, for ever greater n, until the rebuild gets through."""
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    with Lvstore.create(here, size=8 << 20, cluster_size=CLUSTER, name="here") as store:
        source(store, HEAD)
    with Lvstore.create(there, size=8 << 20, cluster_size=CLUSTER, name="there") as other:
        if diverged:
            diverge(other)
    pristine = {path: Path(path).read_bytes() for path in (here, there)}
    skip, failed = 0, 0
    while True:
        for path, content in pristine.items():
            Path(path).write_bytes(content)
        store, other = Lvstore.open(here), Lvstore.open(there)
        volume, device = store.get("v"), other.engine.device
        other.engine.stop_flusher()
        device.plant_fault(operation, code, skip=skip)
        job = start_rebuild(volume, other, "v")
        assert job.wait(60)
        injected = device.injected_faults
        count("faults injected", injected)
        if job.state == "error":
            failed += 1
            assert job.errno in (code, errno.EIO), (skip, job.error)
            assert "there" in job.error, job.error
            # Of the destination alone: nothing here is held, left over or in the way.
            assert [lvol.name for lvol in store.lvols] == ["s1", "s2", "v"]
            assert all(lvol.busy is None and not lvol.open_count for lvol in store.lvols)
            fill(volume, [36], "later")
            volume.flush()
            store.create_volume("w", CLUSTER).delete()
        else:
            assert job.state == "complete"
        closing = closed(other)
        assert closing is None or closing.errno in (code, errno.EIO)
        device_worked = not injected
        assert [f for f in check_store(there) if f.severity == "error"] == []
        with Lvstore.open(there) as other:
            assert other.damaged == []
            report = rebuild(volume, other)
            assert_same(volume, other)
            assert diff(volume, other.get("v")).equal
            if device_worked:
                assert report.total("copied") == len(HEAD)
        store.close()
        for path in pristine:
            assert check_store(path) == []
        if device_worked:
            break
        skip += 1 + skip // 3
    assert failed > 5


def test_a_destination_that_is_full_for_a_while(store, other):
    """No error that lasts: with space again the same command goes on without opening anything."""
    volume = source(store, HEAD)
    other.engine.device.plant_fault("write", errno.ENOSPC, skip=15, times=1)
    job = start_rebuild(volume, other, "v")
    assert job.wait(60)
    assert (job.state, job.errno) == ("error", errno.ENOSPC), job.error
    assert "lvol 'lvs1/v-rebuilding': No space left on device" in job.error
    report = rebuild(volume, other)
    assert report.layers[0].resumed
    assert_same(volume, other)


def test_a_copy_into_a_failing_store(store):
    """A shallow copy to an lvol of the same store: its own job's error, and nobody else's."""
    volume = source(store, HEAD)
    target = store.create_volume("target", SIZE)
    where = store.engine.device
    store.engine.stop_flusher()
    where.plant_fault("write", errno.EIO, skip=3, times=1)
    job = store.get("s1").shallow_copy(target)
    assert job.wait(60)
    assert (job.state, job.errno) == ("error", errno.EIO)
    assert "target" in job.error
    assert store.get("s1").busy is None
    assert not target.open_count
    fill(volume, [39], "goes on")
    volume.flush()
    with pytest.raises(OSError, match="'target'"):
        target.flush()
    target.delete()
    again = store.create_volume("target", SIZE)
    job = store.get("s1").shallow_copy(again)
    assert job.wait(60)
    job.raise_if_failed()
    for cluster in range(20):
        assert again.pread(CLUSTER, cluster * CLUSTER) == cluster_of((1, cluster))
    again.flush()
