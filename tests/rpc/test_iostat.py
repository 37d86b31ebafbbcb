"""bdev_get_iostat counts what was really done, and begins anew when asked."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs.rpc.target import Target
from tests.rpc.target_process import RawClient, serving

MIB = 1 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RawClient, Target]]:
    with serving(str(tmp_path / "s")) as target:
        client = RawClient(str(tmp_path / "s"))
        client.call("bdev_malloc_create", name="m", num_blocks=16384, block_size=4096)
        client.call("bdev_lvol_create_lvstore", bdev_name="m", lvs_name="lvs", cluster_sz=MIB)
        client.call(
            "bdev_lvol_create", lvol_name="v", size_in_mib=8, thin_provision=True, lvs_name="lvs"
        )
        yield client, target
        client.close()


def counted(client: RawClient, name: str, **params: Any) -> dict[str, Any]:
    (bdev,) = client.call("bdev_get_iostat", names=[name], **params)["bdevs"]
    return dict(bdev)


def test_counts_bytes_and_latencies(served: tuple[RawClient, Target]) -> None:
    client, target = served
    lvol = target.find_lvol("lvs/v")
    began = time.monotonic_ns()
    lvol.pwrite(b"x" * MIB, 0)
    lvol.pwrite(b"y" * 4096, 2 * MIB)
    assert lvol.pread(512, 0) == b"x" * 512
    lvol.unmap(0, MIB)
    took = time.monotonic_ns() - began
    found = counted(client, "lvs/v")
    assert found["name"] == lvol.uuid
    assert (found["num_write_ops"], found["bytes_written"]) == (2, MIB + 4096)
    assert (found["num_read_ops"], found["bytes_read"]) == (1, 512)
    assert (found["num_unmap_ops"], found["bytes_unmapped"]) == (1, MIB)
    assert (found["num_copy_ops"], found["io_error"]) == (0, {})
    total = 0
    for kind, ops in (("read", 1), ("write", 2), ("unmap", 1)):
        ticks, slowest, quickest = (
            found[f"{which}{kind}_latency_ticks"] for which in ("", "max_", "min_")
        )
        assert 0 < quickest <= slowest <= ticks
        assert quickest + (ops - 1) * slowest == ticks
        total += ticks
    assert total <= took
    # The device under it: the data, and the metadata that name them.
    target.stores[0].flush()
    below = counted(client, "m")
    assert below["bytes_written"] > MIB + 4096
    assert below["num_write_ops"] > 2
    assert not [member for member in below if "latency" in member]
    assert counted(client, "m", reset_mode="all") == below
    assert (counted(client, "m")["bytes_written"], counted(client, "m")["num_write_ops"]) == (0, 0)
    lvol.pwrite(b"z", 0)
    assert counted(client, "m")["bytes_written"] >= 1
    everything = client.call("bdev_get_iostat")
    assert everything["tick_rate"] == 1_000_000_000
    assert [bdev["name"] for bdev in everything["bdevs"]] == ["m", lvol.uuid]


def test_failures_are_counted(served: tuple[RawClient, Target]) -> None:
    client, target = served
    with pytest.raises(OSError, match="out of its"):
        target.find_lvol("lvs/v").pread(1, 8 * MIB)
    assert counted(client, "lvs/v")["io_error"] == {}  # refused before it was a request
    lvol = target.find_lvol("lvs/v")
    lvol.snapshot("s")
    with pytest.raises(OSError, match="read-only"):
        target.find_lvol("lvs/s").pwrite(b"x", 0)
    assert counted(client, "lvs/s")["io_error"] == {"failed": 1}
    assert counted(client, "lvs/s", reset_mode="error")["num_write_ops"] == 0
    assert counted(client, "lvs/s")["io_error"] == {}


def test_begins_anew(served: tuple[RawClient, Target]) -> None:
    client, target = served
    lvol = target.find_lvol("lvs/v")
    lvol.pwrite(b"x" * MIB, 0)
    before = counted(client, "lvs/v", reset_mode="maxmin")
    after = counted(client, "lvs/v", reset_mode="all")
    assert before["max_write_latency_ticks"] > 0
    assert (after["max_write_latency_ticks"], after["min_write_latency_ticks"]) == (0, 0)
    assert after["num_write_ops"] == 1
    assert counted(client, "lvs/v")["num_write_ops"] == 0
    lvol.pwrite(b"x", 0)
    assert client.call("bdev_reset_iostat", mode="none") is True
    assert counted(client, "lvs/v")["bytes_written"] == 1
    assert client.call("bdev_reset_iostat", name="lvs/v") is True
    assert counted(client, "lvs/v")["bytes_written"] == 0
    assert lvol.blob.writes == 2  # what the mount goes by is not reset


def test_what_may_be_asked(served: tuple[RawClient, Target]) -> None:
    client, target = served
    told = client.call("bdev_get_iostat", name="lvs/v", per_channel=True)
    assert told["name"] == target.find_lvol("lvs/v").uuid
    assert [channel["num_write_ops"] for channel in told["channels"]] == [0]
    invalid = {"code": -22, "message": "Invalid argument"}
    assert client.call("bdev_get_iostat", per_channel=True) == invalid
    assert client.call("bdev_get_iostat", names=["m", "lvs/v"], per_channel=True) == invalid
    assert client.call("bdev_get_iostat", name="m", names=["m"]) == invalid
    gone = {"code": -19, "message": "No such device"}
    assert client.call("bdev_get_iostat", names=["m", "none"]) == gone
    assert client.call("bdev_reset_iostat", name="none") == gone
    wrong = {"code": -32603, "message": "spdk_json_decode_object failed"}
    assert client.call("bdev_get_iostat", reset_mode="some") == wrong
