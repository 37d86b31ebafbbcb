"""Merging runs, judging targets, tables."""

import io
import json

import pytest
from rich.console import Console

from bench import report, results, targets
from bench.case import Outcome

READ = targets.READ32


def outcome(key: str, better: str = "more", **values: list[float]) -> Outcome:
    samples = {name: [{"value": v} for v in series] for name, series in values.items()}
    return Outcome(key, key, "IOPS", better, samples)


def test_merge_takes_a_case_whole_from_one_run():
    old = results.document(
        [outcome("a", lvolfs=[1], peer=[2]), outcome("b", lvolfs=[3])], slices=["old"]
    )
    new = results.document([outcome("a", lvolfs=[10])], slices=["new"])
    merged = results.outcomes(results.merge(old, new))
    assert merged["a"].samples == {"lvolfs": [{"value": 10}]}
    assert merged["b"].values("lvolfs") == [3]
    assert results.merge(old, new)["slices"] == ["old", "new"]


def test_merge_keeps_contestants_that_are_measured_one_after_the_other():
    def one(**values: list[float]) -> Outcome:
        found = outcome("a", **values)
        found.sequential = True
        return found

    older, newer = one(lvolfs=[1], peer=[2]), one(lvolfs=[3], gone=[])
    older.failures = {"rsync": "was missing", "gone": "was busy"}
    newer.failures = {"gone": "is missing"}
    merged = results.outcomes(
        results.merge(results.document([older]), results.document([newer], slices=[]))
    )["a"]
    assert merged.values("lvolfs") == [3]
    assert merged.values("peer") == [2]
    assert merged.failures == {"rsync": "was missing", "gone": "is missing"}


def test_failures_are_in_the_tables_and_gathered():
    reads, writes = outcome("a", lvolfs=[1]), outcome("b", lvolfs=[1])
    for found in (reads, writes):
        found.samples["nbdfuse"] = []
        found.failures["nbdfuse"] = "nbdfuse is missing"
    assert report.case_cells(reads)[1][2:] == ["nbdfuse", "failed", "", "0", ""]
    assert report.failures({"a": reads, "b": writes}) == ["nbdfuse (a; b): nbdfuse is missing"]


def test_save_and_load(tmp_path):
    path = tmp_path / "figures.json"
    results.save(path, results.document([outcome("a", lvolfs=[1])]))
    assert results.outcomes(results.load(path))["a"].values("lvolfs") == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"format": 99})])
def test_load_names_what_is_no_result(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(results.ResultError, match=r"x\.json"):
        results.load(path)


def test_a_ratio_target_at_its_limit_is_met():
    target = targets.RatioTarget("t", "k", "peer", 4.0)
    assert target.judge({"k": outcome("k", lvolfs=[400], peer=[100])}).met is True
    assert target.judge({"k": outcome("k", lvolfs=[399], peer=[100])}).met is False
    row = target.judge({})
    assert (row.met, row.measured) == (None, None)


def test_whether_the_best_round_reached_a_target():
    target = targets.RatioTarget("t", "k", "peer", 4.0)
    found = outcome("k", lvolfs=[300, 410, 300], peer=[100, 100, 100])
    assert (target.judge({"k": found}).met, target.judge({"k": found}).reached) == (False, True)
    limit = targets.LimitTarget("t", "k", 16, "bytes")
    row = limit.judge({"k": outcome("k", "less", lvolfs=[20, 15, 20])})
    assert (row.met, row.reached) == (False, True)


def test_a_ratio_across_cases():
    target = targets.RatioTarget("t", "k", "lvolfs", 2.0, against_key="base")
    found = {"k": outcome("k", lvolfs=[50]), "base": outcome("base", lvolfs=[20])}
    assert target.judge(found).measured == 2.5
    found = {"k": outcome("k", "less", lvolfs=[50]), "base": outcome("base", "less", lvolfs=[100])}
    assert target.judge(found).measured == 2.0


def test_limits():
    below = targets.LimitTarget("t", "k", 16, "bytes")
    assert below.judge({"k": outcome("k", "less", lvolfs=[15.9])}).met is True
    assert below.judge({"k": outcome("k", "less", lvolfs=[16])}).met is False
    above = targets.LimitTarget("t", "k", 8, "GiB/s", at_least=True)
    assert above.judge({"k": outcome("k", lvolfs=[8])}).met is True
    assert above.judge({"k": outcome("k", lvolfs=[7.9])}).met is False


def test_every_target_can_be_judged_and_printed():
    found = {READ: outcome(READ, lvolfs=[100000], qcow2=[30000], pyfuse3=[10000])}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(report.target_table(found))
    console.print(report.case_table(found))
    text = console.export_text()
    assert "3.33x" in text
    assert "NO" in text
    assert "10x" in text
    assert "100,000" in text
    assert len(targets.judge({})) == len(targets.TARGETS)


@pytest.mark.parametrize(
    ("value", "text"),
    [(123456.7, "123,457"), (999.6, "1000"), (105.2, "105"), (1.2345, "1.23"), (0.0123, "0.0123")],
)
def test_figures(value, text):
    assert report.figure(value) == text
