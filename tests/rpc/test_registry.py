import json
import os
import subprocess
from pathlib import Path

import pytest

from lvolfs.rpc import registry


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    monkeypatch.setenv("LVOLFS_RUNTIME_DIR", str(directory))
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.img"
    path.write_bytes(b"store")
    return path


def test_any_path_to_the_store_finds_its_daemon(store: Path, tmp_path: Path) -> None:
    registry.publish(str(store), str(tmp_path / "mnt"), "/run/x.sock")
    hard = tmp_path / "hard"
    hard.hardlink_to(store)
    soft = tmp_path / "soft"
    soft.symlink_to(store)
    for path in (store, hard, soft):
        entry = registry.find_by_store(str(path))
        assert entry is not None
        assert (entry.socket, entry.pid) == ("/run/x.sock", os.getpid())
    assert registry.find_by_mountpoint(str(tmp_path / "mnt")) is not None
    assert registry.find_by_mountpoint(str(tmp_path)) is None


def test_a_dead_daemon_is_forgotten(store: Path, runtime: Path) -> None:
    file = registry.publish(str(store), None, "/run/x.sock")
    fields = json.loads(file.read_text())
    gone = subprocess.Popen(["true"])
    gone.wait()
    file.write_text(json.dumps(fields | {"pid": gone.pid}))
    assert registry.find_by_store(str(store)) is None
    assert not file.exists()


def test_a_dead_daemon_that_nobody_waited_for_is_forgotten(store: Path) -> None:
    """As in a container whose first process waits for none but its own children."""
    file = registry.publish(str(store), None, "/run/x.sock")
    daemon = subprocess.Popen(["sleep", "60"])
    entry = {"pid": daemon.pid, "started": registry.process_start(daemon.pid)}
    file.write_text(json.dumps(json.loads(file.read_text()) | entry))
    assert registry.find_by_store(str(store)) is not None
    daemon.kill()
    os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{daemon.pid}").exists()
    assert registry.find_by_store(str(store)) is None
    daemon.wait()


def test_a_reused_pid_is_no_daemon(store: Path) -> None:
    file = registry.publish(str(store), None, "/run/x.sock")
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"started": fields["started"] - 1}))
    assert registry.find_by_store(str(store)) is None


def test_a_garbled_entry_is_no_daemon(store: Path) -> None:
    file = registry.publish(str(store), None, "/run/x.sock")
    for text in ("", "{}", "[1]", '{"store": 1, "unknown": 2}'):
        file.write_text(text)
        assert registry.find_by_store(str(store)) is None


def test_the_directory_must_be_private(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(OSError, match="mode 0700"):
        registry.runtime_directory()


def test_process_start_survives_odd_command_names(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "30"])
    try:
        started = registry.process_start(process.pid)
        own = registry.process_start(os.getpid())
    finally:
        process.kill()
        process.wait()
    assert started is not None
    assert own is not None
    assert started >= own
    assert registry.process_start(process.pid) is None
