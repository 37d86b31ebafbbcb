"""Clones of a snapshot in another store: through bdev_lvol_clone_bdev and _set_parent_bdev."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs.rpc.target import Target
from tests.rpc.target_process import RawClient, serving

MIB = 1 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RawClient, Target]]:
    """Stores `a` and `b`, each with a volume `v` over a snapshot `s`."""
    with serving(str(tmp_path / "sock")) as target:
        client = RawClient(str(tmp_path / "sock"))
        for name in ("a", "b"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(64 * MIB)
            add(client, tmp_path, name)
            client.call(
                "bdev_lvol_create_lvstore", bdev_name=f"disk-{name}", lvs_name=name, cluster_sz=MIB
            )
            client.call(
                "bdev_lvol_create", lvol_name="v", size_in_mib=4, thin_provision=True, lvs_name=name
            )
            target.find_lvol(f"{name}/v").pwrite(name.encode() * MIB, MIB)
            client.call("bdev_lvol_snapshot", lvol_name=f"{name}/v", snapshot_name="s")
        yield client, target
        client.close()


def add(client: RawClient, folder: Path, name: str) -> Any:
    return client.call(
        "bdev_aio_create", name=f"disk-{name}", filename=str(folder / name), block_size=4096
    )


def describe(client: RawClient, name: str) -> dict[str, Any]:
    (bdev,) = client.call("bdev_get_bdevs", name=name)
    return dict(bdev)


def degraded(client: RawClient, name: str) -> bool:
    lvols = client.call("bdev_lvol_get_lvols", lvs_name=name.partition("/")[0])
    return next(bool(lvol["is_degraded"]) for lvol in lvols if lvol["alias"] == name)


def test_a_clone_shows_the_snapshot_and_keeps_it(
    served: tuple[RawClient, Target], tmp_path: Path
) -> None:
    client, target = served
    uuid = describe(client, "b/s")["uuid"]
    client.call("bdev_lvol_clone_bdev", bdev="b/s", lvs_name="a", clone_name="c")
    clone = target.find_lvol("a/c")
    assert clone.pread(3 * MIB, 0) == bytes(MIB) + b"b" * MIB + bytes(MIB)
    clone.pwrite(b"new", MIB + 10)  # the rest of the cluster comes from the other store
    assert clone.pread(16, MIB) == b"bbbbbbbbbbnewbbb"
    assert target.find_lvol("b/s").pread(16, MIB) == b"b" * 16
    assert describe(client, "a/c")["driver_specific"]["lvol"]["external_snapshot_name"] == uuid
    assert describe(client, "b/s")["claim_type"] == "read_many_write_none"
    refused = client.call("bdev_lvol_delete", name="b/s")
    assert refused == {"code": -32603, "message": "Device or resource busy"}

    # A snapshot of the clone, and copies of what it shows.
    client.call("bdev_lvol_snapshot", lvol_name="a/c", snapshot_name="cs")
    client.call("bdev_malloc_create", name="m", num_blocks=1024, block_size=4096)
    started = client.call("bdev_lvol_start_deep_copy", src_lvol_name="a/cs", dst_bdev_name="m")
    while (state := client.call("bdev_lvol_check_deep_copy", **started))["state"] == "in progress":
        pass
    assert state["state"] == "complete"
    found = target.bdevs.find("m")
    assert found is not None
    assert Path(found.path).read_bytes() == clone.pread(4 * MIB, 0)

    # Inflated, it needs nobody any more.
    client.call("bdev_lvol_delete", name="a/c")
    client.call("bdev_lvol_clone_bdev", bdev="b/s", lvs_name="a", clone_name="d")
    assert client.call("bdev_lvol_inflate", name="a/d") is True
    assert target.find_lvol("a/d").pread(2 * MIB, 0) == bytes(MIB) + b"b" * MIB


def test_a_store_that_leaves_and_comes_back(
    served: tuple[RawClient, Target], tmp_path: Path
) -> None:
    client, target = served
    client.call("bdev_lvol_clone_bdev", bdev="b/s", lvs_name="a", clone_name="c")
    # While it is used it stays; the clone is what has to go first.
    busy = {"code": -16, "message": "Device or resource busy"}
    assert client.call("bdev_aio_delete", name="disk-b") == busy
    assert client.call("bdev_aio_delete", name="disk-a") is True
    assert client.call("bdev_aio_delete", name="disk-b") is True

    # The clone's store alone: degraded; with the other one: whole again. In both orders.
    for order in ("ab", "ba"):
        for name in order:
            add(client, tmp_path, name)
            if order[0] == "a" and name == "a":
                assert degraded(client, "a/c")
                with pytest.raises(OSError, match="external snapshot"):
                    target.find_lvol("a/c").pread(1, MIB)
        assert not degraded(client, "a/c")
        assert target.find_lvol("a/c").pread(2, MIB) == b"bb"
        client.call("bdev_aio_delete", name="disk-a")
        client.call("bdev_aio_delete", name="disk-b")


def test_the_store_is_closed_under_the_clone(served: tuple[RawClient, Target]) -> None:
    client, target = served
    client.call("bdev_lvol_clone_bdev", bdev="b/s", lvs_name="a", clone_name="c")
    clone = target.find_lvol("a/c")
    target.find_lvol("b/s").store.close()  # as at the end of the process
    assert clone.degraded
    with pytest.raises(OSError, match="external snapshot"):
        clone.pread(1, MIB)
    assert target.find_lvol("a/v").pread(1, MIB) == b"a"


def test_a_new_parent(served: tuple[RawClient, Target]) -> None:
    client, target = served
    client.call("bdev_lvol_create", lvol_name="w", size_in_mib=4, thin_provision=True, lvs_name="a")
    assert client.call("bdev_lvol_set_parent_bdev", lvol_name="a/w", parent_name="b/s") is True
    assert target.find_lvol("a/w").pread(2, MIB) == b"bb"
    again = client.call("bdev_lvol_set_parent_bdev", lvol_name="a/w", parent_name="b/s")
    assert again == {"code": -32602, "message": "File exists"}


def test_what_cannot_be_one(served: tuple[RawClient, Target]) -> None:
    client, _ = served

    def clone(bdev: str, lvs_name: str) -> Any:
        return client.call("bdev_lvol_clone_bdev", bdev=bdev, lvs_name=lvs_name, clone_name="c")

    writable = clone("b/v", "a")
    assert writable == {"code": -32602, "message": "Operation not permitted"}
    same = clone("a/s", "a")
    assert same["message"] == "bdev is an lvol in same lvs as clone; use bdev_lvol_clone instead"
    assert clone("disk-b", "a") == {"code": -32602, "message": "Operation not permitted"}
    # Each store waiting for the other would never end.
    assert len(clone("b/s", "a")) == 36
    circle = {"code": -32602, "message": "Invalid argument"}
    assert clone("a/s", "b") == circle
    assert client.call("bdev_lvol_set_parent_bdev", lvol_name="b/v", parent_name="a/s") == circle
