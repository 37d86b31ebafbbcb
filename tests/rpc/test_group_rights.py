"""What a member of --rpc-group names is opened with the member's rights, not the daemon's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs.lvstore.store import Lvstore
from tests.nbd_server import nbd_server
from tests.other_users import NOBODY, within_reach
from tests.rpc.serve_command import ServeCommand

pytestmark = pytest.mark.needs_root

MIB = 1 << 20
GROUP = 12345
SCRIPT = """
import json, os, sys
from lvolfs.rpc.client import Client
os.setgroups([12345]); os.setgid(65534); os.setuid(65534)
with Client(sys.argv[1], timeout=30) as client:
    for method, params in json.loads(sys.argv[2]):
        try:
            print(json.dumps(client.call(method, **params)))
        except Exception as error:
            print(json.dumps(str(error)))
"""


def member(cli: ServeCommand, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """What a member of the group is answered, an error as its text."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, cli.socket, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def served(cli: ServeCommand, tmp_path: Path) -> Iterator[ServeCommand]:
    with Lvstore.create(str(tmp_path / "store"), size=32 * MIB) as store:
        volume = store.create_volume("v", MIB)
        volume.pwrite(b"x" * MIB, 0)
        volume.snapshot("s")
    cli.serve(tmp_path / "store", "--rpc-group", str(GROUP))
    with within_reach(cli.socket):
        yield cli


def copy_to(path: Path | str) -> tuple[str, dict[str, Any]]:
    return "lvolfs_start_copy", {"source": "lvs0/s", "destination": str(path)}


def test_a_member_copies_to_what_it_may_write_and_nowhere_else(
    served: ServeCommand, tmp_path: Path
) -> None:
    theirs, roots, groups = tmp_path / "theirs", tmp_path / "roots", tmp_path / "groups"
    for path in (theirs, roots, groups):
        path.write_bytes(bytes(MIB))
        path.chmod(0o600)
    os.chown(theirs, NOBODY, NOBODY)
    os.chown(groups, 0, GROUP)
    groups.chmod(0o660)
    link = tmp_path / "link"
    link.symlink_to(roots)
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "file").write_bytes(bytes(MIB))
    (hidden / "file").chmod(0o666)
    (job,) = member(served, copy_to(theirs))
    assert job["state"] in {"in progress", "complete"}
    served.run("jobs", tmp_path / "store", "--watch")
    (job,) = member(served, copy_to(groups))
    assert job["state"] in {"in progress", "complete"}
    served.run("jobs", tmp_path / "store", "--watch")
    assert theirs.read_bytes() == groups.read_bytes() == b"x" * MIB
    refused = member(
        served,
        copy_to(roots),
        copy_to(link),
        copy_to(hidden / "file"),
        copy_to(f"/proc/{os.getpid()}/root{roots}"),
        copy_to("/etc/shadow"),
    )
    assert all("Permission denied" in text for text in refused), refused
    assert roots.read_bytes() == bytes(MIB)
    assert (hidden / "file").read_bytes() == bytes(MIB)
    # Root is not held to that.
    assert "copied" in served.run("copy", tmp_path / "store", "s", roots, "--wait")
    assert roots.read_bytes() == b"x" * MIB


def test_a_member_connects_to_no_socket_that_it_may_not_write(
    served: ServeCommand, tmp_path: Path
) -> None:
    """Connecting to a unix socket needs the right to write to it."""
    (text,) = member(served, copy_to(f"nbd+unix:///?socket={served.socket.parent}/private"))
    assert "cannot be reached" in text
    private = tmp_path / "private"
    with nbd_server(private, "memory", str(MIB)) as server:
        private.chmod(0o600)
        (text,) = member(served, copy_to(server.uri))
        assert "ermission denied" in text


def test_a_member_repairs_from_no_file_that_it_may_not_read(
    served: ServeCommand, tmp_path: Path
) -> None:
    """The daemon tells neither what a file has in it nor how long it is."""
    served.run("checksum", "register", tmp_path / "store", "s")
    roots, theirs = tmp_path / "roots", tmp_path / "theirs"
    for path in (roots, theirs):
        path.write_bytes(b"x" * MIB)
        path.chmod(0o600)
    os.chown(theirs, NOBODY, NOBODY)
    repair = {"name": "lvs0/s", "clusters": [[0, 1]]}
    refused, repaired = member(
        served,
        ("lvolfs_repair_clusters", {**repair, "source": str(roots)}),
        ("lvolfs_repair_clusters", {**repair, "source": str(theirs)}),
    )
    assert "Permission denied" in refused
    assert (repaired["repaired"], repaired["refused"]) == ([[0, 1]], [])


def test_a_member_names_no_path_that_is_opened_again_later(
    served: ServeCommand, tmp_path: Path
) -> None:
    """A path that is kept would be opened when nobody of theirs asks any more."""
    file = tmp_path / "file"
    file.write_bytes(bytes(MIB))
    file.chmod(0o666)
    answers = member(
        served,
        ("bdev_aio_create", {"name": "a", "filename": str(file), "block_size": 512}),
        ("bdev_uring_create", {"name": "u", "filename": str(file), "block_size": 512}),
        ("lvolfs_create_external_clone", {"name": "c", "path": str(file)}),
        ("lvolfs_mount", {"mountpoint": str(tmp_path)}),
        ("lvolfs_check", {"path": str(file)}),
        ("lvolfs_rebuild", {"source": "lvs0/v", "volume": "v", "path": str(file)}),
        ("lvolfs_set_external_parent", {"name": "lvs0/v", "path": str(file)}),
    )
    assert all("not permitted" in text or "let root" in text for text in answers), answers
    # Everything else goes on with the rights of the daemon.
    made = member(
        served,
        ("bdev_lvol_create", {"lvol_name": "n", "size_in_mib": 1, "lvs_name": "lvs0"}),
        ("bdev_lvol_snapshot", {"lvol_name": "lvs0/n", "snapshot_name": "ns"}),
    )
    assert all(len(text) == 36 for text in made), made
