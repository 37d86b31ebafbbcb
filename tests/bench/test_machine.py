"""The refusal to measure beside other load."""

import multiprocessing
import os
import time

import pytest

from bench import machine

STAT = "cpu  100 20 30 800 40 5 5 {stolen} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def spin() -> None:
    while True:
        pass


def test_idle_counts_waiting_for_disks_and_stolen_is_apart():
    assert machine.processor_times(STAT.format(stolen=7)) == (840, 7, 1007)


def test_busy_share():
    assert machine.busy_share((100, 0, 200), (150, 0, 300)) == 0.5
    assert machine.busy_share((1, 0, 1), (1, 0, 1)) == 0.0


def test_refuses_beside_load_and_names_the_way_out():
    spinning = multiprocessing.get_context("fork").Process(target=spin)
    spinning.start()
    try:
        time.sleep(0.05)
        with pytest.raises(machine.LoadError) as refused:
            machine.refuse_beside_load(0.5, limit=0.01)
    finally:
        spinning.kill()
        spinning.join()
    assert f"({os.getpid()})" not in str(refused.value)
    assert "--force" in str(refused.value)


def test_load_up_to_the_limit_is_accepted(monkeypatch):
    times = iter([(100, 0, 200), (190, 0, 300)])
    monkeypatch.setattr(machine, "read_processor_times", lambda: next(times))
    assert machine.refuse_beside_load(0, limit=0.11) == pytest.approx(0.1)


def test_the_busiest_are_named():
    before = {1: ("init", 5), 2: ("idle", 7), 3: ("make", 10), 9: ("bench", 0)}
    after = {1: ("init", 6), 2: ("idle", 7), 3: ("make", 40), 4: ("cc (1)", 90), 9: ("bench", 99)}
    assert machine.busiest(before, after, own=9) == ["cc (1) (4)", "make (3)", "init (1)"]
    assert machine.busiest(before, before, own=9) == []
