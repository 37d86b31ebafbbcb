"""The life of jobs: ids, ends of every kind, how many are kept, closing."""

import errno
import threading

import pytest

from lvolfs.delta import jobs
from lvolfs.delta.jobs import Job, JobRegistry


def new(kind="copy"):
    return Job(kind, lvol="v", lvol_uuid="u", destination=None)


@pytest.fixture
def registry():
    found = JobRegistry("lvs0")
    yield found
    found.close()


def test_a_result(registry):
    job = registry.start(new(), lambda _: "done")
    assert job.wait(5)
    assert (job.state, job.result, job.error) == ("complete", "done", None)
    assert job.seconds >= 0


def test_an_error_keeps_number_and_sentence(registry):
    def work(_):
        raise OSError(errno.ENOSPC, "no room for cluster 3")

    job = registry.start(new(), work)
    assert job.wait(5)
    assert (job.state, job.errno, job.error) == ("error", errno.ENOSPC, "no room for cluster 3")
    with pytest.raises(OSError, match="no room for cluster 3"):
        job.raise_if_failed()


def test_what_nobody_expected_is_an_error_too(registry, caplog):
    job = registry.start(new(), lambda _: 1 // 0)
    assert job.wait(5)
    assert (job.state, job.errno) == ("error", errno.EIO)
    assert "ZeroDivisionError" in job.error
    assert "failed unexpectedly" in caplog.text


def test_ecanceled_without_a_cancel_is_an_error(registry):
    def work(_):
        raise OSError(errno.ECANCELED, "not by us")

    job = registry.start(new(), work)
    assert job.wait(5)
    assert job.state == "error"


def test_held_things_are_released_before_the_end_is_told(registry):
    released = threading.Event()
    held = jobs.ExitStack()
    held.callback(released.set)
    job = registry.start(new(), lambda _: None, held)
    assert job.wait(5)
    assert released.is_set()


def test_ids_ascend_over_registries(registry):
    other = JobRegistry("lvs1")
    ids = [each.start(new(), lambda _: None).id for each in (registry, other, registry)]
    assert ids == sorted(set(ids))
    other.close()


def test_get_and_cancel_of_what_is_not_there(registry):
    with pytest.raises(OSError, match="no job 0") as caught:
        registry.get(0)
    assert caught.value.errno == errno.ENODEV
    job = registry.start(new(), lambda _: None)
    assert job.wait(5)
    with pytest.raises(OSError, match="ended already") as caught:
        registry.cancel(job.id)
    assert caught.value.errno == errno.ESRCH


def test_the_oldest_finished_ones_go(registry, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT_FINISHED", 3)
    started = []
    for _ in range(6):
        started.append(registry.start(new(), lambda _: None))
        assert started[-1].wait(5)
    registry._drop_old()
    assert registry.list() == started[-3:]


def test_close_cancels_waits_and_refuses(registry):
    def work(job):
        while not job.control.cancelled:
            threading.Event().wait(0.01)
        raise OSError(errno.ECANCELED, "cancelled")

    job = registry.start(new(), work)
    assert registry.active("copy", "u") is job
    registry.close()
    assert job.state == "cancelled"
    held = jobs.ExitStack()
    released = []
    held.callback(released.append, 1)
    with pytest.raises(OSError, match="being closed") as caught:
        registry.start(new(), work, held)
    assert caught.value.errno == errno.ESHUTDOWN
    assert released == [1]


def test_a_forgotten_end_is_listed_still(registry):
    job = registry.start(new(), lambda _: None)
    assert job.wait(5)
    registry.forget(job.id)
    with pytest.raises(OSError, match="no job"):
        registry.get(job.id)
    assert job in registry.list()
