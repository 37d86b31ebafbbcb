"""Figures in documents, plots, and what a result without a case leaves out."""

from pathlib import Path

import pytest

from bench import publish, results
from bench.case import Outcome
from bench.groups.rebuild.plain_files import literal_bytes
from bench.processes import ProgramError

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
SLICE = {"date": "d", "seconds": 1.0, "rounds": 3, "commit": None, "stolen": 0.01}


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
    page = publish.performance_page(found, ["rebuild"])
    assert "| delta rebuild, 1 % changed, vs rsync --inplace | ≥ 20x | 40x |" in page
    assert "not measured" in page
    assert "![rebuild](plots/rebuild.png)" in page
    table = publish.readme_table(results.outcomes(found))
    assert "| replica, 1 % changed | s | 0.2 | rsync 8 |" in table


def test_what_rsync_says_it_moved():
    assert literal_bytes("x\nLiteral data: 1,048,576 bytes\n") == 1048576.0
    with pytest.raises(ProgramError, match="does not say"):
        literal_bytes("nothing")
