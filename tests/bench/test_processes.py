"""Programs, daemons and scratch space are gone whatever happens."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bench import fio
from bench.peers.block_files import scratch_directory
from bench.processes import ProgramError, daemon, execute, mounted


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_failing_program_is_quoted():
    with pytest.raises(ProgramError, match=r"ls /nowhere.*No such file"):
        execute("ls", "/nowhere")


def test_a_program_that_hangs_is_killed():
    begun = time.monotonic()
    with pytest.raises(ProgramError, match="sleep 100: hung for"):
        execute("sleep", "100", patience=0.1)
    assert time.monotonic() - begun < 50


def test_an_interrupt_ends_the_program(monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def wait(self, timeout=None):
            started.append(self.pid)
            if len(started) == 1:
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute("sleep", "100")
    assert not alive(started[0])


def test_a_missing_program_names_the_way_out():
    with pytest.raises(ProgramError, match="scripts/setup --bench"):
        execute("no-such-program-anywhere")


def test_a_daemon_that_does_not_start_is_quoted():
    with (
        pytest.raises(ProgramError, match="status 3: no luck"),
        daemon("sh", "-c", "echo no luck; exit 3", ready=lambda: False),
    ):
        pytest.fail("never ready")


def test_a_daemon_ends_with_its_block_also_on_errors():
    pids = []

    def interrupted() -> None:
        with daemon("sleep", "100", ready=lambda: True) as process:
            pids.append(process.pid)
            assert alive(process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 1
    assert not alive(pids[0])


def test_scratch_space_is_removed_on_errors(tmp_path):
    def interrupted() -> None:
        with scratch_directory(tmp_path) as directory:
            (directory / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {root!r})
    import signal
    from bench.__main__ import leave_on_signal
    from bench.peers.block_files import scratch_directory
    from bench.processes import daemon
    signal.signal(signal.SIGTERM, leave_on_signal)
    # Ignored in what a shell without job control runs in the background, tests included.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with scratch_directory(Path({parent!r})) as d, daemon("sleep", "100", ready=lambda: True) as p:
        print(p.pid, flush=True)
        time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_leave_no_process(tmp_path, number):
    root = str(Path(__file__).parents[2])
    script = textwrap.dedent(SCRIPT).format(root=root, parent=str(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    with child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        child.send_signal(number)
        child.wait(20)
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def test_mount_points_are_told_from_other_directories(tmp_path):
    assert mounted(Path("/proc"))
    assert not mounted(tmp_path)


def test_a_daemon_that_died_is_still_unmounted():
    ended = []
    with daemon("sleep", "100", ready=lambda: True, end=lambda: ended.append(1)) as process:
        process.kill()
        process.wait()
    assert ended == [1]


def test_a_daemon_does_not_get_our_ctrl_c():
    with daemon("sleep", "100", ready=lambda: True) as process:
        assert os.getpgid(process.pid) != os.getpgid(0)


def test_fractions_of_seconds_reach_fio(tmp_path, monkeypatch):
    """fio itself takes --runtime=0.5 for no limit at all."""
    given = []

    def spy(*words: str) -> str:
        given.extend(words)
        raise ProgramError("not run")

    monkeypatch.setattr(fio, "execute", spy)
    with pytest.raises(ProgramError, match="not run"):
        fio.run(tmp_path / "x", "read", "4k", seconds=0.5)
    assert "--runtime=500ms" in given
