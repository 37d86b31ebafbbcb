"""Base devices that come, go and grow, and what happens to what lies on them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc.target import Target
from tests.rpc.target_process import RawClient, serving

MIB = 1 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RawClient, Target]]:
    with serving(str(tmp_path / "s")) as target:
        client = RawClient(str(tmp_path / "s"))
        yield client, target
        client.close()


def sized(path: Path, size: int) -> str:
    with path.open("ab") as file:
        file.truncate(size)
    return str(path)


def make_store(client: RawClient, path: Path, name: str = "aio0") -> None:
    filename = sized(path, 64 * MIB)
    assert client.call("bdev_aio_create", name=name, filename=filename, block_size=4096) == name
    uuid = client.call(
        "bdev_lvol_create_lvstore", bdev_name=name, lvs_name=f"on-{name}", cluster_sz=MIB
    )
    assert isinstance(uuid, str)


def lvol(client: RawClient, name: str) -> Any:
    (bdev,) = client.call("bdev_get_bdevs", name=name)
    return bdev["driver_specific"]["lvol"]


def test_an_external_snapshot_that_leaves_and_comes_back(
    served: tuple[RawClient, Target], tmp_path: Path
) -> None:
    client, target = served
    make_store(client, tmp_path / "a")
    image = tmp_path / "ext"
    image.write_bytes(b"\xab" * MIB + bytes(MIB))
    uuid = "12345678-1234-4234-8234-123456789abc"
    device = {"name": "ext", "filename": str(image), "block_size": 4096, "uuid": uuid}
    client.call("bdev_aio_create", **device)
    client.call("bdev_lvol_clone_bdev", bdev="ext", lvs_name="on-aio0", clone_name="clone")
    assert lvol(client, "on-aio0/clone")["external_snapshot_name"] == uuid
    (bdev,) = client.call("bdev_get_bdevs", name="ext")
    assert bdev["claim_type"] == "read_many_write_none"
    refused = client.call("bdev_lvol_create_lvstore", bdev_name="ext", lvs_name="x")
    assert refused == {"code": -1, "message": "Operation not permitted"}

    assert client.call("bdev_aio_delete", name="ext") is True
    (listed,) = client.call("bdev_lvol_get_lvols", lvs_name="on-aio0")
    assert listed["is_degraded"] is True
    with pytest.raises(OSError, match="external snapshot"):
        target.find_lvol("on-aio0/clone").pread(10, 0)

    client.call("bdev_aio_create", **device)
    (listed,) = client.call("bdev_lvol_get_lvols", lvs_name="on-aio0")
    assert listed["is_degraded"] is False
    assert target.find_lvol("on-aio0/clone").pread(10, 0) == b"\xab" * 10

    # Found again, too, when the store is opened after the device.
    client.call("bdev_aio_delete", name="aio0")
    assert client.call("bdev_lvol_get_lvstores") == []
    client.call("bdev_aio_create", name="aio0", filename=str(tmp_path / "a"), block_size=4096)
    assert target.find_lvol("on-aio0/clone").pread(10, 0) == b"\xab" * 10


def test_a_store_in_memory_is_gone_with_its_device(served: tuple[RawClient, Target]) -> None:
    client, target = served
    assert client.call("bdev_get_bdevs") == []  # by now the connection is accepted
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert client.call("bdev_malloc_create", num_blocks=16384, block_size=512) == "Malloc0"
    client.call("bdev_lvol_create_lvstore", bdev_name="Malloc0", lvs_name="m", cluster_sz=65536)
    client.call("bdev_lvol_create", lvol_name="v", size_in_mib=1, lvs_name="m")
    target.find_lvol("m/v").pwrite(b"hello", 5)
    assert target.find_lvol("m/v").pread(5, 5) == b"hello"
    counted = client.call("bdev_get_iostat", name="m/v")["bdevs"][0]
    assert (counted["num_write_ops"], counted["bytes_written"]) == (1, 5)
    assert client.call("bdev_malloc_delete", name="Malloc0") is True
    assert client.call("bdev_get_bdevs") == []
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_store_grows_with_its_device(served: tuple[RawClient, Target], tmp_path: Path) -> None:
    client, _ = served
    make_store(client, tmp_path / "a")
    sized(tmp_path / "a", 128 * MIB)
    assert client.call("bdev_aio_rescan", name="aio0") is True
    (bdev,) = client.call("bdev_get_bdevs", name="aio0")
    assert bdev["num_blocks"] == 128 * MIB // 4096
    assert client.call("bdev_lvol_grow_lvstore", lvs_name="on-aio0") is True
    (store,) = client.call("bdev_lvol_get_lvstores")
    assert store["total_data_clusters"] == 127


def test_a_store_of_another_process_is_not_examined(
    served: tuple[RawClient, Target], tmp_path: Path
) -> None:
    client, _ = served
    with Lvstore.create(str(tmp_path / "a"), size=64 * MIB):
        answer = client.call(
            "bdev_aio_create", name="a", filename=str(tmp_path / "a"), block_size=4096
        )
    assert answer == {"code": -16, "message": "Device or resource busy"}
    assert client.call("bdev_get_bdevs") == []


def test_waiting_for_a_device(served: tuple[RawClient, Target], tmp_path: Path) -> None:
    client, _ = served
    other = RawClient(client.socket.getpeername())
    other.socket.sendall(
        b'{"id":1,"method":"bdev_get_bdevs","params":{"name":"late","timeout":20000}}'
    )
    time.sleep(0.1)
    client.call("bdev_malloc_create", name="late", num_blocks=8, block_size=4096)
    assert b'"name":"late"' in other.file.readline()
    other.close()


def test_what_was_deleted_is_wiped(served: tuple[RawClient, Target], tmp_path: Path) -> None:
    client, _ = served
    make_store(client, tmp_path / "a")
    client.call("bdev_lvol_create", lvol_name="v", size_in_mib=4, lvs_name="on-aio0")
    assert client.call("bdev_lvol_delete_lvstore", lvs_name="on-aio0") is True
    assert (tmp_path / "a").stat().st_size == 64 * MIB
    assert not any((tmp_path / "a").read_bytes())
    client.call("bdev_aio_delete", name="aio0")
    client.call("bdev_aio_create", name="aio0", filename=str(tmp_path / "a"), block_size=4096)
    assert client.call("bdev_lvol_get_lvstores") == []
