from pathlib import Path

import pytest

from lvolfs import Lvstore
from tests.cli.conftest import MIB, Run, write


def content(store: Path, name: str) -> bytes:
    with Lvstore.open(str(store), read_only=True) as opened:
        lvol = opened.get(name)
        return lvol.pread(lvol.size, 0)


def test_shallow_range_and_deep_copy(store: Path, tmp_path: Path, run: Run) -> None:
    run("volume", "create", store, "to", "--size", "8M")
    write(store, "to", dict.fromkeys(range(8), b"x"))
    done = run("copy", store, "monday", "to", "--clusters", "1-2", "--json").json
    assert (done["state"], done["copied_clusters"], done["unmapped_clusters"]) == ("complete", 1, 1)
    x = b"x" * MIB
    assert content(store, "to") == x + b"b" * MIB + b"\0" * MIB + 5 * x
    assert "copied 3 clusters" in run("copy", store, "monday", "to").out

    write(store, "disk", {7: b"z"})
    run("snapshot", store, "disk", "tuesday")
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(8 * MIB)
    run("copy", store, "tuesday", file, "--deep", "--wait")
    assert file.read_bytes() == content(store, "tuesday")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["disk", "to"], 1, "disk"),
        (["monday", "monday"], 1, "monday"),
        (["monday", "nope"], 1, "nope"),
        (["monday", "/nonexistent/file"], 1, "/nonexistent/file"),
        (["monday", "small"], 1, "small"),
        (["monday", "to", "--clusters", "8"], 1, "8"),
        (["monday", "to", "--clusters", "x"], 2, "x"),
        (["monday", "to", "--clusters", "1", "--deep"], 1, "deep"),
    ],
)
def test_refusals(store: Path, run: Run, words: list[str], status: int, said: str) -> None:
    run("volume", "create", store, "to", "--size", "8M")
    run("volume", "create", store, "small", "--size", "4M")
    assert said in run("copy", store, *words, expect=status).err
    assert content(store, "to") == b"\0" * 8 * MIB


def test_diff_in_a_store_and_across(store: Path, tmp_path: Path, run: Run) -> None:
    assert run("diff", store, "monday", "disk", "--json").json["equal"] is True
    write(store, "disk", {1: b"B", 7: b"z"})
    differing = run("diff", store, "monday", "disk", expect=3)
    assert differing.out == "1,7\n"
    other = tmp_path / "other.img"
    run("create", other, "--size", "64M")
    run("volume", "create", other, "v", "--size", "8M")
    write(other, "v", {0: b"a", 1: b"B", 5: b"c", 6: b"y"})
    result = run("diff", store, "disk", f"{other}:v", "--json", expect=3).json
    assert result["ranges"] == [[6, 2]]
    assert result["differing_clusters"] == 2
    assert run("diff", store, "disk", f"{tmp_path}/none:v", expect=1).err


def test_rebuild_keeps_copies_and_is_repeatable(store: Path, tmp_path: Path, run: Run) -> None:
    replica = tmp_path / "replica.img"
    run("create", replica, "--size", "64M", "--name", "replica")
    full = run("rebuild", f"{store}:disk", f"{replica}:disk", "--json").json
    assert [(layer["name"], layer["action"]) for layer in full["layers"]] == [
        ("monday", "full"),
        ("disk", "full"),
    ]
    assert full["totals"]["copied"] == 3
    write(store, "disk", {2: b"d"})
    run("snapshot", store, "disk", "tuesday")
    delta = run("rebuild", f"{store}:disk", f"{replica}:disk", "--json").json
    assert {layer["name"]: layer["action"] for layer in delta["layers"]}["monday"] == "kept"
    assert delta["totals"]["copied"] == 1
    assert content(replica, "disk") == content(store, "disk")
    again = run("rebuild", f"{store}:disk", f"{replica}:disk")
    assert "0 clusters copied" in again.out
    run("check", replica)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("STORE:disk", "STORE:copy"),
        ("STORE:nope", "REPLICA:disk"),
        ("STORE", "REPLICA:disk"),
        ("/nonexistent:disk", "REPLICA:disk"),
        ("STORE:disk", "/nonexistent:disk"),
    ],
)
def test_rebuild_refusals(
    store: Path, tmp_path: Path, run: Run, source: str, destination: str
) -> None:
    replica = tmp_path / "replica.img"
    run("create", replica, "--size", "64M")
    words = [
        text.replace("STORE", str(store)).replace("REPLICA", str(replica))
        for text in (source, destination)
    ]
    run("rebuild", *words, expect=1)
    assert run("ls", replica, "--json").json == []
