"""lvolfs's own calls to a daemon: mount, unmount, check, metrics, rebuild, a job's rate."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs.lvstore.store import Lvstore
from tests.command_line import CommandLine
from tests.rpc.target_process import RawClient, end_daemon

MIB = 1 << 20


class Machine(CommandLine):
    """Two stores, commands, and daemons that are ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sockets: list[Path] = []
        for name in ("a", "b"):
            with Lvstore.create(str(folder / name), size=128 * MIB, name=f"lvs-{name}") as store:
                volume = store.create_volume("disk", 32 * MIB)
                volume.pwrite(name.encode() * 8 * MIB, 0)
                volume.snapshot("monday")
        self.mountpoint = folder / "mnt"
        self.mountpoint.mkdir()

    def daemon(self, *arguments: str | Path) -> RawClient:
        """`lvolfs serve` or `lvolfs mount` with a socket of its own; a client of it."""
        number = len(self.sockets)
        socket = self.folder / f"s{number}"
        self.run(*arguments, "--rpc-socket", socket, "--log", self.folder / f"log{number}")
        self.sockets.append(socket)
        return RawClient(str(socket))

    def end(self) -> None:
        for socket in self.sockets:
            if socket.exists():
                end_daemon(str(socket))
        for where in self.folder.glob("mnt*"):
            subprocess.run(["umount", "-l", where], check=False, capture_output=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    it = Machine(tmp_path)
    yield it
    it.end()


def wait(client: RawClient, job: dict[str, Any], store: str) -> dict[str, Any]:
    ended = client.call("lvolfs_wait_job", id=job["id"], timeout=30, lvs_name=store)
    assert ended["state"] == "complete", ended
    return dict(ended)


@pytest.mark.needs_fuse
def test_a_served_store_is_mounted_and_unmounted(machine: Machine, tmp_path: Path) -> None:
    client = machine.daemon("serve", machine.folder / "a", machine.folder / "b")
    where = machine.mountpoint
    for turn in range(3):
        if turn == 1:
            machine.run("mount", machine.folder / "a", where)
        else:
            options = {"mountpoint": str(where), "lvs_name": "lvs-a"}
            assert client.call("lvolfs_mount", **options) is True
        assert (where / "snapshots/monday").read_bytes()[: 2 * MIB] == b"a" * 2 * MIB
        with (where / "volumes/disk").open("r+b") as file:
            file.write(b"turn %d" % turn)
            held = client.call("lvolfs_unmount", mountpoint=str(where))
            assert held["code"] == -16
        # The command finds it by the mount point and by the store.
        for target in (where, machine.folder / "a"):
            assert json.loads(machine.run("info", target, "--json"))["mountpoint"] == str(where)
        assert "lvolfs_requests_total" in client.call("lvolfs_metrics", lvs_name="lvs-a")
        other = client.call("lvolfs_mount", mountpoint=str(tmp_path), lvs_name="lvs-b")
        assert other["code"] == -16
        again = machine.run("mount", machine.folder / "a", tmp_path, status=1)
        assert f"lvolfs umount {where}" in again
        assert client.call("bdev_aio_delete", name=str(machine.folder / "a"))["code"] == -16
        if turn == 1:
            machine.run("umount", where)
        elif turn == 0:
            assert client.call("lvolfs_unmount", mountpoint=str(where)) is True
        else:
            subprocess.run(["umount", where], check=True)
            until_unmounted(client)
        assert not os.path.ismount(where)
        assert client.call("lvolfs_get_store", lvs_name="lvs-a")["mountpoint"] is None
        assert client.call("lvolfs_unmount", mountpoint=str(where))["code"] == -22
        assert "lvolfs_requests_total" not in client.call("lvolfs_metrics", lvs_name="lvs-a")
    assert client.call("lvolfs_mount", mountpoint="/nowhere", lvs_name="lvs-a")["code"] == -2
    wrong = {"mountpoint": str(where), "lvs_name": "lvs-a", "options": "wat"}
    assert client.call("lvolfs_mount", **wrong)["code"] == -22
    # Ended with a mount: taken away, and the store is clean.
    assert client.call("lvolfs_mount", mountpoint=str(where), lvs_name="lvs-b") is True
    client.close()
    machine.end()
    assert not os.path.ismount(where)
    with Lvstore.open(str(machine.folder / "a")) as store:
        assert not store.replayed
        assert store.get("disk").pread(6, 0) == b"turn 2"


def until_unmounted(client: RawClient) -> None:
    deadline = time.monotonic() + 10
    while client.call("lvolfs_get_store", lvs_name="lvs-a")["mountpoint"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.needs_fuse
def test_unmounting_ends_the_daemon_of_a_mount(machine: Machine) -> None:
    client = machine.daemon("mount", machine.folder / "a", machine.mountpoint)
    held = (machine.mountpoint / "volumes/disk").open("rb")
    refused = client.exchange(
        {
            "id": 1,
            "method": "lvolfs_unmount",
            "params": {"mountpoint": str(machine.mountpoint)},
        }
    )["error"]
    assert (refused["code"], f"process {os.getpid()}" in refused["data"]["detail"]) == (-16, True)
    held.close()
    assert client.call("lvolfs_unmount", mountpoint=str(machine.mountpoint)) is True
    assert client.file.readline() == b""
    client.close()
    assert "consistent" in machine.run("check", machine.folder / "a")


@pytest.mark.needs_fuse
def test_stores_beside_a_mount_are_found_by_their_paths(machine: Machine) -> None:
    client = machine.daemon("mount", machine.folder / "a", machine.mountpoint)
    device = {"name": "b", "filename": str(machine.folder / "b"), "block_size": 4096}
    assert client.call("bdev_aio_create", **device) == "b"
    assert "monday" in machine.run("ls", machine.folder / "b")
    machine.run("volume", "create", machine.folder / "b", "new", "--size", "4M")
    assert [lvol["name"] for lvol in client.call("lvolfs_get_lvols", lvs_name="lvs-b")] == [
        "disk", "monday", "new",
    ]  # fmt: skip
    # The mounted one stays what the mount point means.
    assert "new" not in machine.run("ls", machine.mountpoint)
    refused = machine.run("mount", machine.folder / "b", machine.folder, status=1)
    assert "a process can have one mount" in refused
    assert client.call("bdev_aio_delete", name="b") is True
    assert "new" in machine.run("ls", machine.folder / "b")
    client.close()


def test_the_check_of_an_open_store(machine: Machine) -> None:
    client = machine.daemon("serve", machine.folder / "a")
    for number in range(20):
        client.call("lvolfs_create_volume", name=f"v{number}", size=4 * MIB, thick=True)
    for number in range(0, 20, 2):
        client.call("bdev_lvol_delete", name=f"lvs-a/v{number}")
    report = client.call("lvolfs_check")
    assert (report["consistent"], report["findings"]) == (True, [])
    assert client.call("lvolfs_check", repair=True)["code"] == -16
    assert client.call("lvolfs_check", path=str(machine.folder / "a"))["code"] == -16
    assert client.call("lvolfs_check", remove_damaged=True)["code"] == -22
    # One that nobody has open; a byte of a metadata page of it is wrong.
    damage(machine.folder / "b")
    report = client.call("lvolfs_check", path=str(machine.folder / "b"))
    assert not report["consistent"]
    assert {finding["severity"] for finding in report["findings"]} & {"error", "warning"}
    assert client.call("lvolfs_check", path=str(machine.folder / "none"))["code"] == -2
    client.close()


def damage(path: Path) -> None:
    """A byte of the last metadata page that is in use."""
    with path.open("r+b") as file:
        file.seek(4096 * 4)  # behind the superblock and the masks
        pages = file.read(4096 * 64)
        used = [index for index in range(64) if any(pages[index * 4096 : index * 4096 + 4096])]
        file.seek(4096 * (4 + used[-1]) + 30)
        file.write(b"\xff" * 8)


def test_damage_under_an_open_store_is_seen(machine: Machine) -> None:
    client = machine.daemon("serve", machine.folder / "a")
    damage(machine.folder / "a")
    report = client.call("lvolfs_check")
    assert not report["consistent"], report
    client.close()


def test_a_rebuild_by_one_process(machine: Machine) -> None:
    client = machine.daemon("serve", machine.folder / "a", machine.folder / "b")
    job = client.call("lvolfs_rebuild", source="lvs-a/disk", volume="disk", lvs_name="lvs-b")
    ended = wait(client, job, "lvs-a")
    assert [layer["name"] for layer in ended["result"]["layers"]] == ["monday", "disk"]
    listed = client.call("lvolfs_get_jobs", lvs_name="lvs-b")
    assert job["id"] in [each["id"] for each in listed]
    for wrong, code in (
        ({"lvs_name": "lvs-a"}, -22),
        ({"lvs_name": "none"}, -19),
        ({}, -22),
        ({"path": str(machine.folder / "none")}, -2),
        ({"path": str(machine.folder)}, -22),
        ({"path": str(machine.folder / "a")}, -22),
    ):
        answer = client.call("lvolfs_rebuild", source="lvs-a/disk", volume="x", **wrong)
        assert answer["code"] == code, wrong
    client.close()
    machine.end()
    assert_equal(machine)


@pytest.mark.parametrize(
    "destination", ["closed", pytest.param("mounted", marks=pytest.mark.needs_fuse)]
)
def test_a_rebuild_elsewhere(machine: Machine, destination: str) -> None:
    client = machine.daemon("serve", machine.folder / "a")
    path = machine.folder / "b"
    if destination == "mounted":
        machine.daemon("mount", path, machine.mountpoint).close()
        path = machine.mountpoint
    job = client.call("lvolfs_rebuild", source="lvs-a/disk", volume="disk", path=str(path))
    wait(client, job, "lvs-a")
    client.close()
    machine.end()
    assert_equal(machine)


def assert_equal(machine: Machine) -> None:
    with (
        Lvstore.open(str(machine.folder / "a")) as source,
        Lvstore.open(str(machine.folder / "b")) as destination,
    ):
        for name in ("disk", "monday"):
            assert destination.get(name).pread(32 * MIB, 0) == source.get(name).pread(32 * MIB, 0)


def test_the_rate_of_a_running_job_is_changed(machine: Machine) -> None:
    client = machine.daemon("serve", machine.folder / "a")
    # 8 MiB at 64 KiB a second would take two minutes.
    job = client.call("lvolfs_register_checksums", name="lvs-a/monday", rate=65536)
    time.sleep(0.2)
    running = client.call("lvolfs_get_job", id=job["id"])
    assert running["state"] == "in progress"
    began = time.monotonic()
    assert client.call("lvolfs_set_job_rate", id=job["id"], rate=0)["id"] == job["id"]
    wait(client, job, "lvs-a")
    assert time.monotonic() - began < 20
    assert client.call("lvolfs_set_job_rate", id=job["id"], rate=1)["code"] == -3
    assert client.call("lvolfs_set_job_rate", id=999, rate=1)["code"] == -19

    slow = client.call("lvolfs_verify_checksums", name="lvs-a/monday", rate=65536)
    assert "at most 128 KiB/s" in machine.run(
        "jobs", "rate", machine.folder / "a", str(slow["id"]), "128K"
    )
    machine.run("jobs", "rate", machine.folder / "a", str(slow["id"]), "0")
    wait(client, slow, "lvs-a")
    client.close()


@pytest.mark.needs_fuse
def test_a_change_by_rpc_shows_in_the_tree_and_the_other_way_round(machine: Machine) -> None:
    client = machine.daemon("mount", machine.folder / "a", machine.mountpoint)
    volumes, snapshots = machine.mountpoint / "volumes", machine.mountpoint / "snapshots"

    def names(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    def known(**match: Any) -> list[str]:
        lvols = client.call("bdev_lvol_get_lvols", lvs_name="lvs-a")
        return sorted(
            lvol["name"] for lvol in lvols if all(lvol[key] == each for key, each in match.items())
        )

    # By RPC, seen in the tree: what the kernel knew before is asked for each time.
    assert not (volumes / "new").exists()
    client.call("bdev_lvol_create", lvol_name="new", size_in_mib=4, lvs_name="lvs-a")
    assert (volumes / "new").stat().st_size == 4 * MIB
    assert names(volumes) == ["disk", "new"]
    with (volumes / "new").open("r+b", buffering=0) as held:
        held.write(b"content")
        client.call("bdev_lvol_resize", name="lvs-a/new", size_in_mib=8)
        assert os.fstat(held.fileno()).st_size == (volumes / "new").stat().st_size == 8 * MIB
        assert held.seek(0, os.SEEK_END) == 8 * MIB
        client.call("bdev_lvol_rename", old_name="lvs-a/new", new_name="newer")
        assert not (volumes / "new").exists()
        assert names(volumes) == ["disk", "newer"]
        client.call("bdev_lvol_snapshot", lvol_name="lvs-a/newer", snapshot_name="tuesday")
        assert (snapshots / "tuesday").read_bytes()[:7] == b"content"
        held.seek(0)
        held.write(b"changed")
        assert (snapshots / "tuesday").read_bytes()[:7] == b"content"
    client.call("bdev_lvol_clone", snapshot_name="lvs-a/tuesday", clone_name="copy")
    assert (volumes / "copy").read_bytes()[:7] == b"content"
    client.call("bdev_lvol_set_read_only", name="lvs-a/copy")
    assert names(snapshots) == ["copy", "monday", "tuesday"]
    until_deleted(client, "lvs-a/copy")
    assert not (snapshots / "copy").exists()
    # Data that a copy writes behind the kernel's back.
    assert (volumes / "newer").read_bytes()[:7] == b"changed"
    started = client.call(
        "bdev_lvol_start_shallow_copy", src_lvol_name="lvs-a/tuesday", dst_bdev_name="lvs-a/newer"
    )
    while client.call("bdev_lvol_check_shallow_copy", **started)["state"] == "in progress":
        time.sleep(0.01)
    assert (volumes / "newer").read_bytes()[:7] == b"content"

    # In the tree, seen by RPC.
    with (volumes / "made").open("wb") as file:
        file.truncate(2 * MIB)
    assert client.call("bdev_get_bdevs", name="lvs-a/made")[0]["num_blocks"] == 2 * MIB // 4096
    os.truncate(volumes / "made", 3 * MIB)
    assert client.call("bdev_get_bdevs", name="lvs-a/made")[0]["num_blocks"] == 3 * MIB // 4096
    (volumes / "made").rename(volumes / "moved")
    assert known(is_snapshot=False) == ["disk", "moved", "newer"]
    os.setxattr(volumes / "moved", "user.lvolfs.snapshot", b"wednesday")
    assert known(is_snapshot=True) == ["monday", "tuesday", "wednesday"]
    (volumes / "moved").write_bytes(b"z" * MIB)
    lvol = client.call("bdev_get_bdevs", name="lvs-a/moved")[0]["driver_specific"]["lvol"]
    assert (lvol["num_allocated_clusters"], lvol["base_snapshot"]) == (1, "wednesday")
    (volumes / "moved").unlink()
    (snapshots / "wednesday").unlink()
    assert known() == ["disk", "monday", "newer", "tuesday"]
    client.close()


def until_deleted(client: RawClient, name: str) -> None:
    """The kernel tells of a closed file a moment later: until then the lvol is busy."""
    deadline = time.monotonic() + 10
    while client.call("bdev_lvol_delete", name=name) is not True:
        assert time.monotonic() < deadline
        time.sleep(0.02)
