"""Many clients at once change a mounted store while fio verifies what it writes there."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CommandLine
from tests.rpc.target_process import RawClient

CLIENTS = 32
ROUNDS = 6  # of three lvols each: 576 in all
MIB = 1 << 20
PATIENCE = 15.0

pytestmark = pytest.mark.needs_fuse


class Mounted(CommandLine):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store, self.mountpoint = folder / "store", folder / "mnt"
        self.socket = str(folder / "rpc.sock")
        self.mountpoint.mkdir()
        self.run("create", self.store, "--size", "512M", "--cluster-size", "64K")
        where = ("--rpc-socket", self.socket, "--log", folder / "log")
        self.run("mount", self.store, self.mountpoint, *where)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    it = Mounted(tmp_path)
    yield it
    subprocess.run(["umount", "-l", it.mountpoint], check=False, capture_output=True)


def result(client: RawClient, method: str, **params: Any) -> Any:
    answer = client.call(method, **params)
    assert not (isinstance(answer, dict) and "code" in answer), (method, params, answer)
    return answer


def delete(client: RawClient, name: str) -> None:
    """The kernel tells of a closed file a moment later: until then the lvol is busy."""
    deadline = time.monotonic() + PATIENCE
    while (answer := client.call("bdev_lvol_delete", name=name)) is not True:
        assert answer["message"] == "Device or resource busy", (name, answer)
        assert time.monotonic() < deadline, (name, answer)
        time.sleep(0.02)


def one_client(mounted: Mounted, number: int) -> int:
    """Lives of lvols, one after another; the number of lvols that it made."""
    client = RawClient(mounted.socket)
    made = 0
    try:
        for turn in range(ROUNDS):
            name = f"c{number}-{turn}"
            for each in (name, f"{name}-copy"):
                result(
                    client,
                    "bdev_lvol_create",
                    lvol_name=each,
                    size_in_mib=2,
                    thin_provision=True,
                    lvs_name="lvs0",
                )
            data = bytes([number * ROUNDS + turn & 0xFF or 1]) * 65536
            # Visible in the tree as soon as the call is answered.
            with (mounted.mountpoint / "volumes" / name).open("r+b") as file:
                file.write(data)
                file.seek(MIB)
                file.write(data)
            result(
                client, "bdev_lvol_snapshot", lvol_name=f"lvs0/{name}", snapshot_name=f"{name}-s"
            )
            assert (mounted.mountpoint / "snapshots" / f"{name}-s").stat().st_blocks == 256
            assert result(
                client, "bdev_lvol_register_snapshot_range_checksums", name=f"lvs0/{name}-s"
            )
            checksums = result(
                client,
                "bdev_lvol_get_snapshot_range_checksums",
                name=f"lvs0/{name}-s",
                cluster_start_index=0,
                cluster_count=32,
            )
            written = [entry["cluster_index"] for entry in checksums if entry["checksum"]]
            assert written == [0, 16]
            operation = result(
                client,
                "bdev_lvol_start_range_shallow_copy",
                src_lvol_name=f"lvs0/{name}-s",
                dst_bdev_name=f"lvs0/{name}-copy",
                clusters=[0, 1, 16],
            )["operation_id"]
            while (state := result(client, "bdev_lvol_check_shallow_copy", operation_id=operation))[
                "state"
            ] == "in progress":
                time.sleep(0.01)
            assert (state["state"], state["copied_clusters"], state["unmapped_clusters"]) == (
                "complete",
                2,
                1,
            )
            with (mounted.mountpoint / "volumes" / f"{name}-copy").open("rb") as file:
                assert file.read(2 * 65536) == data + bytes(65536)
            for each in (f"{name}-s", name, f"{name}-copy"):
                delete(client, f"lvs0/{each}")
            assert not (mounted.mountpoint / "volumes" / name).exists()
            made += 3
    finally:
        client.close()
    return made


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def most_threads(pid: int, ended: threading.Event) -> int:
    """The most that were seen until the end."""
    most = threads(pid)
    while not ended.wait(0.02):
        most = max(most, threads(pid))
    return most


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until_at_most(limit: int, measure: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while (now := measure()) > limit and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now <= limit


def verify_until(ended: threading.Event, file: Path, aux: Path) -> int:
    """fio again and again; the number of its runs. It ends with an error if it reads wrong."""
    runs = 0
    while True:
        done = subprocess.run(
            [
                "fio", "--name=job", "--thread", f"--filename={file}", f"--aux-path={aux}",
                "--verify_state_save=0", "--rw=randwrite", "--bs=16k", "--size=8m",
                "--ioengine=psync", "--verify=crc32c", "--verify_fatal=1", "--end_fsync=1",
                f"--randseed={runs}",
            ],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        runs += 1
        if ended.is_set():
            return runs


def test_clients_in_parallel_while_fio_verifies(mounted: Mounted, tmp_path: Path) -> None:
    client = RawClient(mounted.socket)
    result(client, "bdev_lvol_create", lvol_name="fio", size_in_mib=8, lvs_name="lvs0")
    pid = result(client, "lvolfs_get_store")["pid"]
    result(client, "lvolfs_flush")
    free = result(client, "lvolfs_get_store")["free_clusters"]
    opened, memory, running = descriptors(pid), resident(pid), threads(pid)
    ended = threading.Event()
    with ThreadPoolExecutor(CLIENTS + 2) as pool:
        most = pool.submit(most_threads, pid, ended)
        fio = pool.submit(verify_until, ended, mounted.mountpoint / "volumes/fio", tmp_path)
        try:
            made = sum(pool.map(lambda number: one_client(mounted, number), range(CLIENTS)))
        finally:
            ended.set()
    assert made == CLIENTS * ROUNDS * 3
    assert fio.result() > 0

    result(client, "lvolfs_flush")
    assert [lvol["name"] for lvol in result(client, "lvolfs_get_lvols")] == ["fio"]
    assert result(client, "lvolfs_get_store")["free_clusters"] == free
    until_at_most(opened, lambda: descriptors(pid))
    assert resident(pid) - memory < 96 * MIB
    # One for the call and one for the job of each client; 16 for short calls, some for the tree.
    assert most.result() - running <= 2 * CLIENTS + 48
    until_at_most(running + 4, lambda: threads(pid))
    client.close()
    mounted.run("umount", mounted.mountpoint)
    assert "consistent" in mounted.run("check", mounted.store)
