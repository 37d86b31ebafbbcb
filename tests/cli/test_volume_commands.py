from pathlib import Path

import pytest

from lvolfs import Lvstore
from tests.cli.conftest import MIB, Run, write


def lvol(run: Run, store: Path, name: str) -> dict:  # type: ignore[type-arg]
    (found,) = (each for each in run("ls", store, "--json").json if each["name"] == name)
    return found


def test_life_of_a_volume(store: Path, run: Run) -> None:
    made = run("volume", "create", store, "v", "--size", "3.5M", "--json").json
    assert (made["size"], made["thin_provision"]) == (4 * MIB, True)
    run("volume", "resize", store, "v", "--size", "6M")
    run("volume", "rename", store, made["uuid"], "w")
    assert lvol(run, store, "w")["size"] == 6 * MIB
    run("volume", "set-read-only", store, "lvs0/w")
    assert lvol(run, store, "w")["read_only"] is True
    run("volume", "delete", store, "w")
    assert [each["name"] for each in run("ls", store, "--json").json] == ["disk", "monday"]


def test_thick_owns_everything(store: Path, run: Run) -> None:
    made = run("volume", "create", store, "t", "--size", "5M", "--thick", "--json").json
    assert (made["num_allocated_clusters"], made["thin_provision"]) == (5, False)


def test_snapshot_keeps_xattrs(store: Path, run: Run) -> None:
    run("snapshot", store, "disk", "s", "--xattr", "a=1", "--xattr", "b=x=y")
    with Lvstore.open(str(store), read_only=True) as opened:
        assert opened.get("s").get_xattr("a") == b"1"
        assert opened.get("s").get_xattr("b") == b"x=y"
    run("snapshot", store, "disk", "t", "--xattr", "a", expect=2)


def test_parents_come_and_go(store: Path, run: Run) -> None:
    run("clone", store, "monday", "a")
    run("volume", "decouple", store, "a")
    assert (lvol(run, store, "a")["parent"], lvol(run, store, "a")["num_allocated_clusters"]) == (
        None,
        3,
    )
    run("clone", store, "monday", "b")
    run("volume", "detach", store, "b")
    assert (lvol(run, store, "b")["parent"], lvol(run, store, "b")["num_allocated_clusters"]) == (
        None,
        0,
    )
    run("volume", "set-parent", store, "b", "monday")
    assert lvol(run, store, "b")["parent"] == "monday"
    run("volume", "inflate", store, "b")
    now = lvol(run, store, "b")
    assert (now["parent"], now["num_allocated_clusters"], now["thin_provision"]) == (None, 8, False)
    with Lvstore.open(str(store), read_only=True) as opened:
        assert opened.get("b").pread(8 * MIB, 0) == opened.get("disk").pread(8 * MIB, 0)


def test_external_snapshot(store: Path, tmp_path: Path, run: Run) -> None:
    base = tmp_path / "base.img"
    base.write_bytes(b"base" * (MIB // 2))
    made = run("volume", "create", store, "e", "--external-snapshot", base, "--json").json
    assert made["size"] == 2 * MIB
    snapshot_id = made["external_snapshot"]
    missing = lvol(run, store, "e")
    assert missing["degraded"] is True
    option = ["--external-snapshot", f"{snapshot_id}={base}"]
    (found,) = (e for e in run(*option, "ls", store, "--json").json if e["name"] == "e")
    assert found["degraded"] is False
    run("volume", "create", store, "f", expect=2)
    run("volume", "create", store, "f", "--size", "1M", "--external-snapshot", base, expect=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["snapshot", "STORE", "nope", "x"], "nope"),
        (["snapshot", "STORE", "disk", "monday"], "monday"),
        (["snapshot", "STORE", "disk", ""], "name"),
        (["snapshot", "STORE", "disk", "a/b"], "a/b"),
        (["snapshot", "STORE", "disk", "x" * 300], "name"),
        (["snapshot", "STORE", "monday", "x"], "monday"),
        (["clone", "STORE", "disk", "x"], "disk"),
        (["volume", "create", "STORE", "disk", "--size", "1M"], "disk"),
        (["volume", "create", "STORE", "x", "--size", "10G", "--thick"], "x"),
        (["volume", "create", "STORE", "", "--size", "1M"], "name"),
        (["volume", "resize", "STORE", "monday", "--size", "1M"], "monday"),
        (["volume", "rename", "STORE", "disk", "monday"], "monday"),
        (["volume", "delete", "STORE", "nope"], "nope"),
        (["volume", "detach", "STORE", "monday"], "monday"),
        (["volume", "set-parent", "STORE", "disk", "disk"], "disk"),
        (["volume", "set-parent", "STORE", "disk", "nope"], "nope"),
    ],
)
def test_refusals_name_the_object_and_change_nothing(
    store: Path, run: Run, words: list[str], said: str
) -> None:
    before = run("ls", store, "--json").out
    assert said in run(*(store if word == "STORE" else word for word in words), expect=1).err
    assert run("ls", store, "--json").out == before


def test_a_snapshot_with_two_clones_stays(store: Path, run: Run) -> None:
    run("clone", store, "monday", "second")
    assert "disk" in run("volume", "delete", store, "monday", expect=1).err
    run("volume", "delete", store, "second")
    run("volume", "delete", store, "monday")
    assert lvol(run, store, "disk")["num_allocated_clusters"] == 3
    write(store, "disk", {7: b"z"})
    with Lvstore.open(str(store), read_only=True) as opened:
        assert opened.get("disk").pread(3, 5 * MIB - 1) == b"\0cc"


def test_inflating_without_room_fails_and_leaves_the_volume(store: Path, run: Run) -> None:
    run("volume", "create", store, "filler", "--size", "55M", "--thick")
    run("clone", store, "monday", "big")
    assert "big" in run("volume", "inflate", store, "big", expect=1).err
    assert lvol(run, store, "big")["parent"] == "monday"
    assert "big" in run("volume", "decouple", store, "big").out
    assert lvol(run, store, "big")["parent"] is None
