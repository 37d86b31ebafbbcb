"""Figures in documents, plots, and what a result without a case leaves out."""

from pathlib import Path

import pytest

from bench import groups, omissions, publish, report, results, targets
from bench.case import Outcome
from bench.groups.rebuild.plain_files import literal_bytes
from bench.processes import ProgramError
from bench.settings import GIB, Settings

ROOT = Path(__file__).parents[2]
MACHINE = {
    "processor": "P",
    "cpus": 2,
    "memory_bytes": 1 << 30,
    "kernel": "6",
    "file_system": "ext4",
    "fuse_over_io_uring": "N",
    "cache_mode": "page cache",
    "versions": {"fio": "fio-3", "zfs-fuse": None},
}
USUAL = Settings.of(Path())
SLICE = {
    "date": "d",
    "seconds": 1.0,
    "rounds": USUAL.rounds,
    "fio_seconds": USUAL.seconds,
    "volume_size": USUAL.volume_size,
    "rebuild_size": USUAL.rebuild_size,
    "commit": None,
    "stolen": 0.01,
}


def outcome(key: str, **values: list[float]) -> Outcome:
    samples = {name: [{"value": v} for v in series] for name, series in values.items()}
    return Outcome(key, "replica, 1 % changed", "s", "less", samples)


def test_only_what_is_between_the_markers_changes():
    text = f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"
    new = publish.between_markers(text, "new", "x.md")
    assert new == f"before\n{publish.BEGIN}\n\nnew\n\n{publish.END}\nafter\n"
    assert publish.between_markers(new, "new", "x.md") == new


def test_a_document_without_markers_is_named():
    with pytest.raises(publish.MarkerError, match=r"x\.md"):
        publish.between_markers("nothing", "new", "x.md")


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md"])
def test_our_documents_have_a_place_for_figures(name):
    assert publish.between_markers((ROOT / name).read_text(), "x", name)


def test_the_page_has_every_target_and_every_case():
    found = results.document(
        [outcome("rebuild.1", lvolfs=[0.2], rsync=[8.0])], machine=MACHINE, slices=[SLICE]
    )
    whole = {"rebuild.1": outcome("rebuild.1", lvolfs=[], rsync=[], btrfs=[])}
    page = publish.performance_page(found, ["rebuild"], whole)
    assert "| delta rebuild, 1 % changed, vs rsync --inplace | ≥ 20x | 40x |" in page
    assert "not measured" in page
    assert "- without btrfs: replica, 1 % changed" in page
    assert "Every row that was measured meets its target." in page
    assert "![rebuild](plots/rebuild.png)" in page
    table = publish.readme_table(results.outcomes(found))
    assert "| replica, 1 % changed | s | 0.2 | rsync 8 |" in table


def test_what_rsync_says_it_moved():
    assert literal_bytes("x\nLiteral data: 1,048,576 bytes\n") == 1048576.0
    with pytest.raises(ProgramError, match="does not say"):
        literal_bytes("nothing")


def test_a_whole_run_is_said_to_be_one():
    found = {"rebuild.1": outcome("rebuild.1", lvolfs=[1], rsync=[2])}
    whole = {"rebuild.1": outcome("rebuild.1", lvolfs=[], rsync=[])}
    assert omissions.left_out(found, whole, [SLICE]).startswith("This is a whole run")


def test_everything_that_is_left_out_is_said():
    found = {"rebuild.1": outcome("rebuild.1", lvolfs=[1])}
    found["rebuild.1"].failures["rsync"] = "rsync is missing"
    whole = {
        "rebuild.1": outcome("rebuild.1", lvolfs=[], rsync=[], btrfs=[]),
        "sweep.x": outcome("sweep.x", lvolfs=[]),
        "sweep.y": outcome("sweep.y", lvolfs=[]),
        "open": Outcome("open", "opening", "s", "less", {"clean": []}),
    }
    piece = SLICE | {"rounds": 1, "rebuild_size": GIB, "interrupted": True}
    piece |= {"skipped": 3, "minutes": 28}
    assert omissions.left_out(found, whole, [piece]).split("\n")[2:] == [
        f"- not measured: {omissions.SWEEP}; opening",
        "- without btrfs: replica, 1 % changed",
        "- failed: rsync (replica, 1 % changed): rsync is missing",
        "- the piece of d: at most 1 rounds, replicas of 1024 MiB",
        "- the piece of d was interrupted",
        "- the piece of d: 3 samples were not taken when its 28 minutes were up",
    ]


def test_missed_targets_are_said():
    row = targets.RatioTarget("reading", "k", "peer", 4.0)
    case = Outcome("k", "t", "IOPS", "more", {"lvolfs": [{"value": 30}], "peer": [{"value": 10}]})
    said = omissions.below_targets([row.judge({"k": case})])
    assert said.endswith("- reading: 3x, target ≥ 4x; no round reaches it")


def test_how_far_a_missed_row_could_get_at_all_is_said():
    samples = {name: [{"value": v}] for name, v in {"lvolfs": 30, "bare": 35, "peer": 10}.items()}
    found = {"k": Outcome("k", "t", "IOPS", "more", samples)}
    ratio = targets.RatioTarget("reading", "k", "peer", 4.0, ceiling="bare").judge(found)
    limit = targets.LimitTarget("rate", "k", 40, "IOPS", at_least=True, ceiling="bare").judge(found)
    said = omissions.below_targets([ratio, limit])
    assert (
        "- reading: 3x, target ≥ 4x; no round reaches it; `bare`, which does less, has 3.5x" in said
    )
    assert said.endswith("`bare`, which does less, has 35 IOPS")
    assert "| reading | ≥ 4x | 3x | 3 - 3 | 3.5x | NO |" in publish.markdown(
        report.TARGET_HEADER, [report.target_cells(ratio)], report.TARGET_RIGHT
    )


def test_the_ceiling_of_a_row_over_two_cases_is_against_the_other_case():
    one = Outcome("one", "t", "IOPS", "more", {"lvolfs": [{"value": 10}], "bare": [{"value": 12}]})
    four = Outcome(
        "four", "t", "IOPS", "more", {"lvolfs": [{"value": 22}], "bare": [{"value": 24}]}
    )
    row = targets.RatioTarget(
        "4 vs 1", "four", "lvolfs", 2.5, against_key="one", ceiling="bare"
    ).judge({"one": one, "four": four})
    assert (row.measured, row.ceiling) == (2.2, 2.4)


def test_every_target_is_of_something_that_a_whole_run_measures(tmp_path):
    whole = groups.catalogue(Settings.of(tmp_path))
    for target in targets.TARGETS:
        assert target.contestant in whole[target.key].samples, target.title
        assert target.ceiling is None or target.ceiling in whole[target.key].samples, target.title
        if isinstance(target, targets.RatioTarget):
            assert target.against in whole[target.against_key or target.key].samples, target.title
    assert list(tmp_path.iterdir()) == []
