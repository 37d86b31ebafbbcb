"""A rebuild that is cut off at every step in turn, and then run again."""

import errno

import pytest

from lvolfs.delta import rebuild_data
from lvolfs.delta.jobs import Job, registry
from lvolfs.delta.rebuild import rebuild, start_rebuild
from lvolfs.delta.rebuild_run import Rebuild
from lvolfs.delta.replica import LocalReplica
from lvolfs.lvstore.store import Lvstore
from tests.delta.conftest import CLUSTER, fill
from tests.delta.histories import SIZE, assert_same, diverge, source

# Two batches.
HEAD = range(28, 34)
CHANGES = [
    "create_volume",
    "clone",
    "snapshot",
    "delete",
    "detach",
    "set_parent",
    "resize",
    "rename",
    "set_xattr",
    "set_progress",
    "register",
    "writing",
]


class CutError(OSError):
    pass


class Power:
    """Both replicas lose it together after `steps` changes; `kill` leaves no time to tidy up."""

    def __init__(self, steps, kill):
        self.steps, self.kill, self.off = steps, kill, False

    def step(self):
        if self.off and self.kill:
            raise CutError(errno.EIO, "still off")
        if self.steps == 0 and not self.off:
            self.off = True
            raise CutError(errno.EIO, "cut off")
        self.steps -= 1


def cut_off(store, power):
    replica = LocalReplica(store)
    for name in CHANGES:
        original = getattr(replica, name)

        def changed(*args, _original=original, **kwargs):
            power.step()
            return _original(*args, **kwargs)

        setattr(replica, name, changed)
    return replica


def run(volume, other, power):
    job = Job("rebuild", lvol="v", lvol_uuid="", destination="v")
    return Rebuild(
        cut_off(volume.store, power),
        "v",
        cut_off(other, power),
        "v",
        algorithm="xxh3",
        register_missing=True,
        verify=True,
        job=job,
    ).run()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(rebuild_data, "BATCH", 3)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("diverged", [False, True])
def test_cut_off_at_every_step(make_store, kill, diverged):
    steps = 0
    redone = []
    while True:
        store, other = make_store(f"a{steps}", clusters=120), make_store(f"b{steps}", clusters=120)
        volume = source(store, HEAD)
        if diverged:
            diverge(other)
        power = Power(steps, kill)
        try:
            run(volume, other, power)
        except CutError:
            # A change while the replica is down.
            fill(volume, [29, 36], "later")
            report = rebuild(volume, other)
            redone.append(report.total("copied"))
        finished = not power.off
        assert_same(volume, other)
        for each in (store, other):
            each.close()
        with Lvstore.open(store.path) as store, Lvstore.open(other.path) as other:
            assert_same(store.get("v"), other)
        if finished:
            break
        steps += 1
    assert steps > 20
    # The further the first run got, the less was left to do.
    assert min(redone) < 8
    assert max(redone) == (9 if diverged else 31)


def test_finished_batches_are_not_copied_again(store, other):
    volume = source(store, HEAD)
    job_power = Power(12, True)
    with pytest.raises(CutError):
        run(volume, other, job_power)
    work = other.get("v-rebuilding")
    done = work.num_allocated_clusters
    assert 3 <= done < 20
    report = rebuild(volume, other)
    first = report.layers[0]
    assert (first.name, first.action, first.resumed) == ("s1", "full", True)
    # At most the batch whose end was not noted any more.
    assert 20 - done <= first.copied <= 20 - done + 3
    assert first.differing == 20
    assert_same(volume, other)


def test_the_head_is_gone_on_with_by_comparing(store, other):
    volume = store.create_volume("v", SIZE)
    fill(volume, range(30), 1)
    with pytest.raises(CutError):
        run(volume, other, Power(10, True))
    done = other.get("v-rebuilding").num_allocated_clusters
    assert done >= 6
    assert [x for x in store.lvols if x.name.startswith("rebuild-")] != []
    fill(volume, [0], "changed since")
    report = rebuild(volume, other)
    assert report.layers[0].resumed
    assert report.layers[0].copied == 30 - done + 1
    assert other.get("v").pread(SIZE, 0) == volume.pread(SIZE, 0)
    assert [x.name for x in store.lvols] == ["v"]


def test_a_source_that_changed_its_history_starts_over(store, other):
    volume = source(store, HEAD)
    with pytest.raises(CutError):
        run(volume, other, Power(12, True))
    for lvol in [x for x in store.lvols if x.name.startswith("rebuild-")]:
        lvol.delete()
    store.get("s1").delete()
    rebuild(volume, other)
    assert_same(volume, other, ("s2",))


def test_cancelled_in_the_middle(store, other):
    volume = source(store, HEAD)
    job = start_rebuild(volume, other, "v", rate=30 * CLUSTER)
    while job.copied < 4:
        assert not job.wait(0.01), job.as_dict()
    job.cancel()
    assert job.wait(10)
    assert job.state == "cancelled"
    assert [x.name for x in store.lvols] == ["s1", "s2", "v"]
    assert registry(store).active("rebuild", volume.uuid) is None
    report = rebuild(volume, other)
    assert report.layers[0].resumed
    assert_same(volume, other)
