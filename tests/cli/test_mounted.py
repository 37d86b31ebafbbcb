"""The same commands on mounted stores: through the daemon's socket."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.rpc import registry
from lvolfs.rpc.client import Client
from tests.cli.conftest import MIB, Run
from tests.command_line import LVOLFS

Mount = Callable[..., Path]


def test_path_and_mount_point_reach_the_daemon(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store)
    link = store.with_name("link")
    link.symlink_to(store)
    for target in (where, store, link):
        info = run("info", target, "--json").json
        assert info["mountpoint"] == str(where)
        assert info["pid"] != os.getpid()
    assert (where / "snapshots/monday").read_bytes()[:3] == b"aaa"


def test_what_the_command_changes_the_mount_shows(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store)
    run("volume", "create", where, "v", "--size", "2M")
    with (where / "volumes/v").open("r+b") as file:
        file.write(b"v" * MIB)
    run("snapshot", where, "v", "s")
    assert (where / "snapshots/s").stat().st_size == 2 * MIB
    run("volume", "rename", where, "v", "w")
    assert sorted(path.name for path in (where / "volumes").iterdir()) == ["disk", "w"]
    assert "w" in _while_open(where / "volumes/w", run, where)
    run("volume", "delete", where, "w")
    assert not (where / "volumes/w").exists()


def _while_open(path: Path, run: Run, where: Path) -> str:
    with path.open("r+b"):
        return run("volume", "delete", where, path.name, expect=1).err


def test_jobs_of_the_daemon_outlive_the_command(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store)
    run("volume", "create", where, "to", "--size", "8M")
    started = run("copy", where, "monday", "to", "--json").json
    run("jobs", where, "--watch")
    (job,) = (j for j in run("jobs", where, "--json").json if j["id"] == started["id"])
    assert (job["state"], job["copied_clusters"]) == ("complete", 3)
    assert (where / "volumes/to").read_bytes() == (where / "snapshots/monday").read_bytes()
    assert "ended already" in run("jobs", "cancel", where, job["id"], expect=1).err
    assert "no job 999" in run("jobs", "cancel", where, "999", expect=1).err


def test_a_slow_job_can_be_cancelled(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store)
    run("volume", "create", where, "to", "--size", "8M")
    started = run("copy", where, "monday", "to", "--rate", "100K", "--json").json
    assert started["state"] == "in progress"
    run("jobs", "cancel", where, started["id"])
    run("jobs", where, "--watch")
    (job,) = run("jobs", where, "--json").json
    assert job["state"] == "cancelled"


def test_rebuild_between_mounted_stores(
    store: Path, tmp_path: Path, run: Run, mount: Mount
) -> None:
    replica = tmp_path / "replica.img"
    run("create", replica, "--size", "64M", "--name", "replica")
    here, there = mount(store), mount(replica)
    full = run("rebuild", f"{here}:disk", f"{there}:disk", "--json").json
    assert full["totals"]["copied"] == 3
    with (here / "volumes/disk").open("r+b") as file:
        file.seek(3 * MIB + 17)
        file.write(b"changed")
    run("snapshot", here, "disk", "tuesday")
    result = run("diff", here, "tuesday", f"{there}:monday", "--json", expect=3).json
    assert result["ranges"] == [[3, 1]]
    delta = run("rebuild", f"{here}:disk", f"{there}:disk", "--json").json
    assert delta["totals"]["copied"] == 1
    assert (there / "volumes/disk").read_bytes() == (here / "volumes/disk").read_bytes()
    for name in ("monday", "tuesday"):
        sums = [run("checksum", "show", t, name, "--json").json["checksum"] for t in (here, there)]
        assert sums[0] == sums[1] is not None
    run("umount", there)
    # One side mounted, the other closed.
    again = run("rebuild", f"{here}:disk", f"{replica}:disk", "--json").json
    assert again["totals"]["copied"] == 0
    run("umount", here)
    run("check", replica)
    run("check", store)


def test_a_delta_between_mounted_stores(
    store: Path, tmp_path: Path, run: Run, mount: Mount
) -> None:
    replica = tmp_path / "replica.img"
    run("create", replica, "--size", "64M", "--name", "replica")
    here, there = mount(store), mount(replica)
    run("rebuild", f"{here}:disk", f"{there}:disk")
    writes = ((here, {1: b"same", 3: b"right"}), (there, {1: b"same", 2: b"extra", 3: b"wrong"}))
    for where, clusters in writes:
        with (where / "volumes/disk").open("r+b") as file:
            for cluster, text in clusters.items():
                file.seek(cluster * MIB)
                file.write(text)
        run("snapshot", where, "disk", "tuesday")
    report = run("rebuild", f"{here}:disk", f"{there}:disk", "--json").json
    (layer,) = [each for each in report["layers"] if each["name"] == "tuesday"]
    assert layer["action"] == "delta"
    assert (layer["copied"], layer["unmapped"], layer["bytes_read"]) == (1, 1, 2 * MIB)
    assert (there / "snapshots/tuesday").read_bytes() == (here / "snapshots/tuesday").read_bytes()
    for where in (here, there):
        run("checksum", "verify", where, "tuesday")
        run("umount", where)
    run("check", replica)


def test_a_mounted_store_is_not_mounted_twice(
    store: Path, tmp_path: Path, run: Run, mount: Mount
) -> None:
    where = mount(store)
    second = tmp_path / "second"
    second.mkdir()
    assert str(where) in run("mount", store, second, expect=1).err


def test_a_mounted_store_is_checked_while_it_is_used(
    store: Path, run: Run, mount: Mount, tmp_path: Path
) -> None:
    where = mount(store)
    with (where / "volumes/disk").open("r+b") as file:
        file.write(b"d" * MIB)
        file.seek(6 * MIB)
        file.write(b"e" * MIB)
        assert run("check", store, "--json").json["findings"] == []
        file.truncate(MIB)
        assert "consistent" in run("check", where).out
    refused = run("check", where, "--repair", expect=1).err
    assert f"lvolfs umount {where}" in refused
    run("umount", where)
    assert "consistent" in run("check", store).out


def test_errors_of_the_daemon_are_told_by_the_command(
    tmp_path: Path, store: Path, run: Run
) -> None:
    assert "nowhere" in run("mount", store, tmp_path / "nowhere", expect=1).err
    (tmp_path / "file").write_bytes(b"x")
    assert "file" in run("mount", store, tmp_path / "file", expect=1).err
    (tmp_path / "mnt").mkdir()
    assert str(tmp_path / "none") in run("mount", tmp_path / "none", tmp_path / "mnt", expect=1).err
    assert "wat" in run("mount", store, tmp_path / "mnt", "-o", "wat", expect=1).err
    assert "no lvolfs store" in run("umount", tmp_path / "mnt", expect=1).err


def test_umount_says_who_is_in_the_way(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store)
    with (where / "snapshots/monday").open("rb"):
        assert str(os.getpid()) in run("umount", where, expect=1).err
    run("umount", where)
    assert registry.find_by_store(str(store)) is None
    assert run("info", store, "--json").json["mountpoint"] is None


def test_a_second_socket(store: Path, tmp_path: Path, run: Run, mount: Mount) -> None:
    path = tmp_path / "rpc.sock"
    where = mount(store, "--rpc-socket", path)
    with Client(str(path)) as client:
        (lvs,) = client.call("bdev_lvol_get_lvstores")
    assert lvs["name"] == "lvs0"
    assert run("--rpc-socket", path, "info", "anything", "--json").json["uuid"] == lvs["uuid"]
    run("umount", where)
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_daemon_cleanly(
    store: Path, run: Run, mount: Mount, number: signal.Signals
) -> None:
    where = mount(store)
    (where / "volumes/disk").open("r+b").close()
    pid = run("info", where, "--json").json["pid"]
    os.kill(pid, number)
    _wait_until_gone(pid)
    assert not os.path.ismount(where)
    assert run("check", store, "--json").json["findings"] == []


def test_a_crash_leaves_a_mount_that_the_next_replaces(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store)
    with (where / "volumes/disk").open("r+b") as file:
        file.write(b"durable")
        file.flush()
        os.fsync(file.fileno())
    pid = run("info", where, "--json").json["pid"]
    os.kill(pid, signal.SIGKILL)
    _wait_until_gone(pid)
    assert "gone" in run("ls", where, expect=1).err
    subprocess.run([LVOLFS, "mount", store, where], check=True, timeout=60)
    assert (where / "volumes/disk").read_bytes()[:8] == b"durablea"


@pytest.mark.needs_fuse
def test_a_mount_that_nobody_waits_for_goes_away(store: Path, tmp_path: Path, run: Run) -> None:
    where = tmp_path / "mnt"
    where.mkdir()
    log = tmp_path / "log"
    command = subprocess.Popen([LVOLFS, "mount", store, where, "--log", log])
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    while not children.read_text() and command.poll() is None:
        time.sleep(0.001)
    command.kill()
    command.wait()
    deadline = time.monotonic() + 30
    while "the daemon failed" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    assert not os.path.ismount(where)
    assert run("info", store, "--json").json["mountpoint"] is None


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while registry.process_start(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_read_only_mount(store: Path, run: Run, mount: Mount) -> None:
    where = mount(store, "-o", "ro")
    assert run("info", where, "--json").json["read_only"] is True
    assert "read-only" in run("snapshot", where, "disk", "x", expect=1).err
    with pytest.raises(OSError, match="Read-only"):
        (where / "volumes/disk").open("r+b")
