"""The client that SPDK publishes on PyPI works on `lvolfs serve` as it is."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spdk.rpc.client import JSONRPCClient, JSONRPCException

from tests.command_line import LVOLFS, CommandLine

SPDK_RPC = LVOLFS.with_name("spdk-rpc")
MIB = 1 << 20


class Served(CommandLine):
    """`lvolfs serve` in the background, driven by spdk-rpc."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.socket = folder / "spdk.sock"
        self.run("serve", "--rpc-socket", str(self.socket), "--log", str(folder / "log"))

    def rpc(self, *arguments: str) -> Any:
        """What spdk-rpc prints: JSON, or a bare word."""
        done = subprocess.run(
            [SPDK_RPC, "-s", self.socket, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout.strip()

    def end(self) -> None:
        self.rpc("spdk_kill_instance", "SIGTERM")
        deadline = time.monotonic() + 20
        while self.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    daemon = Served(tmp_path)
    yield daemon
    if daemon.socket.exists():
        daemon.end()


def until_copied(client: Any, operation: int) -> dict[str, Any]:
    while True:
        status: dict[str, Any] = client.bdev_lvol_check_shallow_copy(operation_id=operation)
        if status["state"] != "in progress":
            return status
        time.sleep(0.02)


@pytest.mark.needs_fuse
def test_create_write_snapshot_checksum_copy_check_delete(served: Served, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    rpc = served.rpc
    assert rpc("bdev_aio_create", str(image), "aio0", "4096") == "aio0"
    assert rpc("bdev_malloc_create", "-b", "mem", "8", "4096") == "mem"
    assert rpc("bdev_lvol_create_lvstore", "aio0", "lvs0", "-c", str(MIB))
    uuid = rpc("bdev_lvol_create", "vol", "8", "-t", "-l", "lvs0")
    (bdev,) = rpc("bdev_get_bdevs", "-b", "lvs0/vol", "-t", "1000")
    assert (bdev["name"], bdev["num_blocks"]) == (uuid, 8 * MIB // 4096)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rpc("bdev_lvol_create", "vol", "8", "-t", "-l", "lvs0")
    assert '"code": -17' in refused.value.stdout + refused.value.stderr

    # Written by a copy: the target itself has no data path.
    source = served.environment["LVOLFS_RUNTIME_DIR"] + "/source"
    served.run("create", source, "--size", "32M", "--name", "from")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    served.run("mount", source, str(mountpoint))
    try:
        with (mountpoint / "volumes/data").open("wb") as file:
            file.truncate(8 * MIB)
            file.write(b"\xcc" * MIB)
            file.seek(3 * MIB)
            file.write(b"\xdd" * MIB)
        served.run("snapshot", str(mountpoint), "data", "frozen")
    finally:
        served.run("umount", str(mountpoint))
    assert rpc("bdev_aio_create", source, "aio1", "4096") == "aio1"
    rpc("bdev_wait_for_examine")
    assert [store["name"] for store in rpc("bdev_lvol_get_lvstores")] == ["lvs0", "from"]
    operation = rpc("bdev_lvol_start_shallow_copy", "from/frozen", "lvs0/vol")["operation_id"]

    # Longhorn's own calls are not in upstream's command line, but in its client.
    client = JSONRPCClient(str(served.socket), timeout=20)
    try:
        assert until_copied(Caller(client), operation)["copied_clusters"] == 2
        assert rpc("bdev_lvol_snapshot", "lvs0/vol", "snap")
        call = Caller(client)
        assert call.bdev_lvol_register_snapshot_range_checksums(name="lvs0/snap") is True
        ours = call.bdev_lvol_get_snapshot_range_checksums(
            name="lvs0/snap", cluster_start_index=0, cluster_count=8
        )
        assert [entry["checksum"] != 0 for entry in ours] == [c in (0, 3) for c in range(8)]
        call.bdev_lvol_register_snapshot_checksum(name="from/frozen")
        assert call.bdev_lvol_get_snapshot_checksum(
            name="lvs0/snap"
        ) == call.bdev_lvol_get_snapshot_checksum(name="from/frozen")

        started = call.bdev_lvol_start_range_shallow_copy(
            src_lvol_name="lvs0/snap", dst_bdev_name="mem", clusters=[3, 0, 5]
        )
        status = until_copied(call, started["operation_id"])
        assert (status["copied_clusters"], status["unmapped_clusters"]) == (2, 1)
        with pytest.raises(JSONRPCException, match="No such device"):
            call.bdev_lvol_check_shallow_copy(operation_id=started["operation_id"])
        with pytest.raises(JSONRPCException, match="Method not found"):
            call.nvmf_get_subsystems()
    finally:
        client.close()
    rpc("bdev_lvol_delete", "lvs0/snap")
    assert [lvol["name"] for lvol in rpc("bdev_lvol_get_lvols", "-l", "lvs0")] == ["vol"]
    rpc("bdev_lvol_delete", "lvs0/vol")
    rpc("bdev_lvol_delete_lvstore", "-l", "lvs0")
    served.end()
    assert "consistent" in served.run("check", source)


class Caller:
    """Methods as attributes, also those that the client's schema does not know."""

    def __init__(self, client: JSONRPCClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return lambda **params: self._client.call(name, params)
