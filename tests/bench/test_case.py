"""Statistics of samples and the order of rounds."""

import pytest

from bench import rounds
from bench.__main__ import selected
from bench.case import Case, Outcome
from bench.processes import ProgramError


def outcome(better: str = "more", **values: list[float]) -> Outcome:
    samples = {name: [{"value": v} for v in series] for name, series in values.items()}
    return Outcome("key", "title", "IOPS", better, samples)


def test_ratio_is_of_medians_and_not_of_means():
    found = outcome(lvolfs=[100, 300, 1000], peer=[50, 100, 10])
    assert found.ratio("lvolfs", "peer") == 6.0


def test_where_less_is_better_the_ratio_is_how_many_times_faster():
    found = outcome("less", lvolfs=[2.0, 2.0], peer=[10.0, 10.0])
    assert found.ratio("lvolfs", "peer") == 5.0


def test_ratio_of_what_was_not_measured_is_none():
    found = outcome(lvolfs=[1.0])
    assert found.ratio("lvolfs", "peer") is None
    assert found.ratio_spread("lvolfs", "peer") is None
    assert found.spread("peer") is None


def test_ratio_spread_pairs_samples_of_one_round():
    found = outcome(lvolfs=[10, 20, 30], peer=[10, 5, 10])
    assert found.ratio_spread("lvolfs", "peer") == (1.0, 4.0)


def test_other_figures_of_a_sample():
    found = Outcome("k", "t", "s", "less", {"a": [{"value": 1, "bytes": 5}, {"value": 2}]})
    assert found.median("a", "bytes") == 5


def test_document_round_trip():
    found = outcome(lvolfs=[1, 2], peer=[3])
    assert Outcome.from_document(found.document()) == found
    found.samples["gone"], found.failures["gone"] = [], "is missing"
    assert Outcome.from_document(found.document()) == found


def test_every_contestant_leads_once():
    names = ["a", "b", "c", "d"]
    orders = [rounds.rotated(names, number) for number in range(8)]
    assert all(sorted(order) == names for order in orders)
    assert {order[0] for order in orders} == set(names)


def test_a_case_that_comes_again_on_other_files_adds_to_its_samples():
    found: dict[str, Outcome] = {}
    for value, contestants in ((1.0, ("a", "b")), (2.0, ("a",))):
        case = Case("x", "x", "s", contestants, lambda _, v=value: {"value": v}, rounds={"b": 1})
        rounds.run([case], 2, lambda _: None, found, clock=rounds.Clock(100))
    assert found["x"].values("a") == [1.0, 1.0, 2.0, 2.0]
    assert found["x"].values("b") == [1.0]


def test_rounds_are_interleaved_and_slow_contestants_limited():
    taken = []

    def case(key: str) -> Case:
        def measure(name: str) -> dict[str, float]:
            taken.append((key, name))
            return {"value": float(len(taken))}

        return Case(key, key, "s", ("fast", "slow"), measure, rounds={"slow": 1})

    said: list[str] = []
    found: dict[str, Outcome] = {}
    rounds.run([case("x"), case("y")], 2, said.append, found, clock=rounds.Clock(100))
    outcomes = list(found.values())
    assert taken == [
        ("x", "fast"),
        ("x", "slow"),
        ("y", "fast"),
        ("y", "slow"),
        ("x", "fast"),
        ("y", "fast"),
    ]
    assert [len(o.samples["fast"]) for o in outcomes] == [2, 2]
    assert [len(o.samples["slow"]) for o in outcomes] == [1, 1]
    assert len(said) == 6


def measured(measure, clock: rounds.Clock | None = None, **options) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    found: dict[str, Outcome] = {}
    case = Case("k", "t", "s", ("good", "bad"), measure)
    clock = clock or rounds.Clock(100)
    rounds.run([case], 2, said.append, found, clock=clock, **options)
    return found["k"], said


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ProgramError("no\n  luck"), "no luck"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_contestant_that_fails_costs_its_own_row(error, reason):
    tried = []

    def measure(name: str) -> dict[str, float]:
        tried.append(name)
        if name == "bad":
            raise error
        return {"value": 1.0}

    outcome, said = measured(measure)
    assert tried == ["good", "bad", "good"]
    assert outcome.failures == {"bad": reason}
    assert outcome.values("good") == [1.0, 1.0]
    assert outcome.values("bad") == []
    assert f"round 1/2 k bad: FAILED: {reason}" in said


def test_a_failure_keeps_the_samples_before_it():
    given = iter([1.0, 2.0, 3.0])

    def measure(name: str) -> dict[str, float]:
        value = next(given, None)
        if value is None:
            raise ProgramError("gone")
        return {"value": value}

    outcome, _ = measured(measure)
    assert outcome.samples == {"good": [{"value": 1.0}], "bad": [{"value": 2.0}, {"value": 3.0}]}
    assert outcome.failures == {"good": "gone"}


def test_results_are_kept_after_every_sample():
    kept = []

    def measure(name: str) -> dict[str, float]:
        if name == "bad":
            raise ProgramError("gone")
        return {"value": 1.0}

    outcome, _ = measured(measure, taken=lambda: kept.append(1))
    assert len(kept) == 3
    assert len(outcome.values("good")) == 2


def test_a_run_whose_time_is_up_takes_no_further_sample():
    clock = rounds.Clock(1000)

    def measure(name: str) -> dict[str, float]:
        if name == "bad":
            clock.end = 0
        return {"value": 1.0}

    outcome, _ = measured(measure, clock)
    assert clock.skipped == 2
    assert (len(outcome.values("good")), len(outcome.values("bad"))) == (1, 1)
    assert outcome.failures == {}


def test_limiting_contestants():
    case = Case("k", "t", "s", ("a", "b"), lambda name: {"value": 1.0}, sequential=True)
    assert case.limited_to({"b", "z"}).contestants == ("b",)
    assert case.limited_to({"b"}).sequential
    assert case.limited_to(set()).contestants == ("a", "b")
    assert case.limited_to({"z"}) is None


def test_what_only_chooses():
    case = Case("rebuild.1", "t", "s", ("a",), lambda name: {"value": 1.0})
    chosen = ("rebuild.1", "rebuild", "rebuild-lvolfs", "*.1")
    assert all(selected(case, [name], "rebuild-lvolfs") for name in chosen)
    other = ("rebuild.10", "rebuild.", "reb", "fio", "*.10")
    assert not any(selected(case, [name], "rebuild-lvolfs") for name in other)
    assert selected(case, [], "rebuild-lvolfs")
