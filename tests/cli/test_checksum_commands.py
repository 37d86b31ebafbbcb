from pathlib import Path

import pytest
import xxhash

from lvolfs import Lvstore
from tests.cli.conftest import MIB, Run

A, B, C = (f"{xxhash.xxh3_64_intdigest(byte * MIB):016x}" for byte in (b"a", b"b", b"c"))


def test_register_show_verify(store: Path, run: Run) -> None:
    done = run("checksum", "register", store, "monday", "--json").json
    assert (done["algorithm"], done["state"], done["job"]["state"]) == (
        "xxh3",
        "complete",
        "complete",
    )
    shown = run("checksum", "show", store, "monday", "--json").json
    assert shown["checksum"] == done["checksum"]
    assert [row["checksum"] for row in shown["clusters"]] == [A, B, None, None, None, C, None, None]
    assert [row["state"] for row in shown["clusters"]].count("written") == 3
    some = run("checksum", "show", store, "monday", "--clusters", "5,0-1", "--json").json
    assert [row["index"] for row in some["clusters"]] == [5, 0, 1]
    assert "as registered: 3 clusters" in run("checksum", "verify", store, "monday").out
    result = run("checksum", "verify", store, "monday", "--json").json
    assert (result["checked"], result["mismatched"]) == (3, [])


def test_partial_registration_and_crc64(store: Path, run: Run) -> None:
    done = run(
        "checksum", "register", store, "monday", "--clusters", "0-3", "--algorithm", "crc64",
        "--json",
    ).json  # fmt: skip
    assert (done["state"], done["checksum"]) == ("partial", None)
    shown = run("checksum", "show", store, "monday", "--json").json
    assert [row["index"] for row in shown["clusters"] if row["checksum"]] == [0, 1]


def corrupt(store: Path, name: str, cluster: int) -> None:
    """Flips a byte of a cluster behind the store's back."""
    with Lvstore.open(str(store), read_only=True) as opened:
        number = int.from_bytes(opened.get(name).blob.clusters()[4 * cluster :][:4], "little")
    with store.open("r+b") as file:
        file.seek(number * MIB + 12345)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_bit_rot_is_found(store: Path, run: Run) -> None:
    run("checksum", "register", store, "monday")
    corrupt(store, "monday", 1)
    assert run("checksum", "verify", store, "monday", "--clusters", "0,2-7").status == 0
    some = run("checksum", "verify", store, "monday", "--clusters", "0-2", "--json", expect=3).json
    assert (some["checked"], some["mismatched"]) == (2, [[1, 1]])
    assert (
        "not what was registered: clusters 1"
        in run("checksum", "verify", store, "monday", expect=3).out
    )
    result = run("scrub", store, "--json", expect=3).json
    assert result["snapshots"][0]["mismatched"] == [[1, 1]]
    assert run("check", store).status == 0


def test_scrub_names_what_is_not_registered(store: Path, run: Run) -> None:
    result = run("scrub", store, "--json").json
    assert result == {"snapshots": [], "unregistered": ["monday"]}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["show", "monday"], 1, "no registered checksums"),
        (["verify", "monday"], 1, "monday"),
        (["register", "disk"], 1, "disk"),
        (["register", "nope"], 1, "nope"),
        (["register", "monday", "--clusters", "8"], 1, "8"),
        (["register", "monday", "--clusters", "7-"], 2, "7-"),
        (["register", "monday", "--clusters", "3-1"], 2, "3-1"),
        (["register", "monday", "--algorithm", "md5"], 2, "md5"),
        (["stop", "monday"], 1, "monday"),
    ],
)
def test_refusals(store: Path, run: Run, words: list[str], status: int, said: str) -> None:
    verb, *rest = words
    assert said in run("checksum", verb, store, *rest, expect=status).err
