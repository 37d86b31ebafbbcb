from pathlib import Path

import pytest

from tests.cli.conftest import MIB, Run


def test_create_tells_what_it_made(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "s"
    made = run("create", path, "--size", "1G", "--cluster-size", "4M", "--name", "x", "--json").json
    assert made["name"] == "x"
    assert made["cluster_size"] == 4 * MIB
    assert made["total_clusters"] == made["free_clusters"] > 200
    assert path.stat().st_size == 1024 * MIB
    assert run("info", path, "--json").json["uuid"] == made["uuid"]


def test_create_needs_force_to_overwrite(store: Path, run: Run) -> None:
    before = run("info", store, "--json").json["uuid"]
    assert "already" in run("create", store, expect=1).err
    assert run("info", store, "--json").json["uuid"] == before
    run("create", store, "--force")
    assert run("info", store, "--json").json["uuid"] != before
    assert run("ls", store, "--json").json == []


@pytest.mark.parametrize("size", ["0", "-1", "x", "10Q", "1.2.3", "99999999T"])
def test_create_with_impossible_sizes(tmp_path: Path, run: Run, size: str) -> None:
    outcome = run("create", tmp_path / "s", f"--size={size}", expect=None)
    assert outcome.status in (1, 2)
    assert outcome.err.startswith("lvolfs: ")
    assert not (tmp_path / "s").exists()


def test_info_and_ls_for_people(store: Path, run: Run) -> None:
    info = run("info", store).out
    assert "lvs0" in info
    assert "1 MiB" in info
    lines = run("ls", store).out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["disk", "monday"]


def test_ls_json_tells_relations(store: Path, run: Run) -> None:
    disk, monday = run("ls", store, "--json").json
    assert (disk["type"], disk["parent"], disk["num_allocated_clusters"]) == ("volume", "monday", 0)
    assert (monday["type"], monday["children"]) == ("snapshot", ["disk"])
    assert monday["num_allocated_clusters"] == 3
    assert monday["alias"] == "lvs0/monday"


def test_tree_hangs_children_under_parents(store: Path, run: Run) -> None:
    run("clone", store, "monday", "copy")
    lines = run("ls", store, "--tree").out.splitlines()
    depth = {
        line.strip("│├└─ ").split()[0]: len(line) - len(line.lstrip("│├└─ ")) for line in lines
    }
    assert depth["disk"] == depth["copy"] > depth["monday"] > 0


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_bytes(b"\0" * MIB), ""),
        (lambda path: path.write_bytes(b"hello" * 100000), ""),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, run: Run, prepare, reason: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "thing"
    prepare(path)
    for verb in ("info", "ls"):
        err = run(verb, path, expect=1).err
        assert str(path) in err
        assert reason in err


def test_version_help_and_wrong_usage(run: Run) -> None:
    assert run("--version").out.startswith("lvolfs ")
    header = Path(run("--include-dir").out.strip()) / "lvolfs.h"
    assert "LVOLFS_IOC_INFO" in header.read_text()
    assert "rebuild" in run("--help").out
    for words in (["nope"], ["info"], ["info", "a", "b"], ["volume"], ["ls", "--nope", "x"]):
        outcome = run(*words, expect=2)
        assert outcome.out == "" or "Usage" in outcome.out
