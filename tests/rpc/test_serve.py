"""`lvolfs serve`: found by its stores' paths, alone on them, open to whom it is told."""

import json
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvolfs.lvstore.store import Lvstore
from tests.other_users import within_reach
from tests.rpc.serve_command import ServeCommand
from tests.rpc.target_process import RawClient

MIB = 1 << 20


def test_each_store_is_found_by_its_path(cli: ServeCommand, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Lvstore.create(str(tmp_path / name), size=64 * MIB, name=f"lvs-{name}").close()
    cli.serve(tmp_path / "a", tmp_path / "b")
    assert stat.S_IMODE(cli.socket.stat().st_mode) == 0o600
    cli.run("volume", "create", tmp_path / "b", "disk", "--size", "4M")
    assert json.loads(cli.run("info", tmp_path / "a", "--json"))["name"] == "lvs-a"
    assert "disk" in cli.run("ls", tmp_path / "b")
    assert "disk" not in cli.run("ls", tmp_path / "a")

    # One that is made by JSON-RPC is found, too, and no longer when it is gone.
    (tmp_path / "c").write_bytes(bytes(64 * MIB))
    client = RawClient(str(cli.socket))
    client.call("bdev_aio_create", name="c", filename=str(tmp_path / "c"), block_size=4096)
    client.call("bdev_lvol_create_lvstore", bdev_name="c", lvs_name="lvs-c", cluster_sz=MIB)
    assert json.loads(cli.run("info", tmp_path / "c", "--json"))["name"] == "lvs-c"
    assert client.call("bdev_aio_delete", name="c") is True
    client.close()
    cli.run("check", tmp_path / "c")

    refused = cli.run(
        "serve", tmp_path / "a", "--rpc-socket", tmp_path / "s2", "--log", tmp_path / "l2", status=1
    )
    assert "in use" in refused
    cli.end()
    assert "disk" in cli.run("ls", tmp_path / "b")
    assert not list((tmp_path / "run").glob("*.sock"))


def test_a_store_that_cannot_be_listened_for(cli: ServeCommand, tmp_path: Path) -> None:
    """The reason is told, and the store is closed again."""
    disk = tmp_path / "c"
    disk.write_bytes(bytes(64 * MIB))
    cli.serve()
    status = disk.stat()
    in_the_way = tmp_path / "run" / f"file-{status.st_dev}-{status.st_ino}.sock"
    in_the_way.touch()
    client = RawClient(str(cli.socket))
    client.call("bdev_aio_create", name="c", filename=str(disk), block_size=4096)
    create = {"bdev_name": "c", "lvs_name": "lvs-c", "cluster_sz": MIB}
    request = {"jsonrpc": "2.0", "id": "x", "method": "bdev_lvol_create_lvstore", "params": create}
    error = client.exchange(request)["error"]
    assert f"{in_the_way} exists and is no socket" in error["data"]["detail"]
    assert client.call("bdev_lvol_get_lvstores") == []
    in_the_way.unlink()
    assert isinstance(client.call("bdev_lvol_create_lvstore", **create), str)
    client.close()


@pytest.fixture
def reachable(cli: ServeCommand) -> Iterator[ServeCommand]:
    with within_reach(cli.socket):
        yield cli


@pytest.mark.needs_root
def test_a_group_is_let_in(reachable: ServeCommand) -> None:
    reachable.serve("--rpc-group", "12345")
    assert stat.S_IMODE(reachable.socket.stat().st_mode) == 0o660
    code = (
        "import os,socket,sys\n"
        "os.setgroups([int(g) for g in sys.argv[2:]]); os.setgid(65534); os.setuid(65534)\n"
        "s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.settimeout(10)\n"
        'try: s.sendall(b\'{"id":1,"method":"framework_wait_init"}\')\n'
        "except BrokenPipeError: pass\n"
        "print(s.recv(4096).decode())\n"
    )
    member = subprocess.run(
        [sys.executable, "-c", code, reachable.socket, "12345"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(member.stdout)["result"] is True
    # Even where the mode of the socket would let everybody in.
    reachable.socket.chmod(0o666)
    stranger = subprocess.run(
        [sys.executable, "-c", code, reachable.socket, "23456"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(stranger.stdout)["error"]["code"] == -1


def test_a_group_that_is_not_there(cli: ServeCommand) -> None:
    assert "there is no group" in cli.serve("--rpc-group", "no-such-group", status=1)


def test_a_socket_in_use(cli: ServeCommand) -> None:
    cli.serve()
    assert "another daemon answers" in cli.serve(status=1)
    said = cli.run("serve", "--rpc-socket", cli.socket, "--foreground", status=1)
    assert said.startswith("lvolfs: another daemon answers"), said
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(cli.socket))
