"""spdk-cli, the shell that SPDK publishes on PyPI, works on `lvolfs serve` as it is."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command_line import LVOLFS, CommandLine
from tests.rpc.target_process import RawClient, end_daemon

SPDK_CLI = LVOLFS.with_name("spdk-cli")
MIB = 1 << 20
Shell = Callable[..., str]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Runs one command line of the shell, and returns what it shows."""
    socket = tmp_path / "s"
    CommandLine(tmp_path).run("serve", "--rpc-socket", socket, "--log", tmp_path / "log")

    def run(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [SPDK_CLI, "-s", socket, *words],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)

    yield run
    end_daemon(str(socket))


def test_devices_stores_and_volumes(shell: Shell, tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(64 * MIB)
    shell("/bdevs/aio", "create", "disk0", str(tmp_path / "disk"), "4096")
    shell("/bdevs/malloc", "create", "8", "4096", "mem0")
    shell("/lvol_stores", "create", "lvs0", "disk0", str(MIB))
    shell("/bdevs/logical_volume", "create", "vol", "4", "lvs0", "True")

    tree = shell("ls")
    assert re.search(r"disk0 .*Size=64\.0M, Claimed", tree), tree
    assert re.search(r"mem0 .*Size=8\.0M, Not claimed", tree), tree
    assert re.search(r"lvs0/vol, Size=4\.0M", tree), tree
    assert re.search(r"lvs0 .*Size=63\.0M, Free=63\.0M", tree), tree
    assert "vhost" not in tree
    assert "nvmf" not in tree

    client = RawClient(str(tmp_path / "s"))
    (lvol,) = client.call("bdev_lvol_get_lvols")
    assert (lvol["alias"], lvol["is_thin_provisioned"]) == ("lvs0/vol", True)
    details = shell(f"/bdevs/logical_volume/{lvol['uuid']}", "show_details")
    assert '"num_blocks": 1024' in details
    counted = shell("/bdevs/aio", "get_bdev_iostat", "disk0")
    assert re.search(r'"num_write_ops": [1-9]', counted), counted
    assert "File exists" in shell(
        "/bdevs/logical_volume", "create", "vol", "4", "lvs0", "True", status=1
    )
    assert "Method not found" in shell("/bdevs/null", "create", "n", "8", "512", status=1)

    shell("/bdevs/logical_volume", "delete", lvol["uuid"])
    shell("/lvol_stores", "delete", "lvs0")
    shell("/bdevs/malloc", "delete", "mem0")
    shell("/bdevs/aio", "delete_all")
    assert client.call("bdev_get_bdevs") == []
    client.close()
