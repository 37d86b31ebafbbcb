"""What runs with the rights of a client."""

import errno
import os
import threading

import pytest

from lvolfs.bdev import resolve
from lvolfs.bdev.file import open_file
from lvolfs.bdev.rights import Client, acting_for, as_client, has_every_right
from lvolfs.lvstore.store import Lvstore
from tests.other_users import NOBODY, within_reach

THEM = Client(NOBODY, NOBODY, (NOBODY,))
MIB = 1 << 20


def test_no_thread_to_be_had(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with acting_for(THEM), pytest.raises(OSError, match="no further thread") as info:
        as_client(os.stat, "/")
    assert info.value.errno == errno.ENOMEM


@pytest.mark.needs_root
def test_a_client_of_root_has_not_every_right():
    assert has_every_right()
    with acting_for(THEM):
        assert not has_every_right()


@pytest.fixture
def reachable(tmp_path):
    with within_reach(tmp_path / "any"):
        yield tmp_path


@pytest.mark.needs_root
def test_a_path_that_leads_elsewhere_once_it_was_looked_at(reachable, monkeypatch):
    """What is told of a file is told of the one that the client has named, and may open."""
    theirs, hidden, path = reachable / "theirs", reachable / "hidden", reachable / "path"
    hidden.mkdir(mode=0o700)
    secret = hidden / "secret"
    for file in (theirs, secret):
        file.write_bytes(bytes(MIB))
        file.chmod(0o666)
    path.symlink_to(theirs)
    replaced = []

    def look(function, *arguments):
        found = as_client(function, *arguments)
        if not replaced:
            path.unlink()
            path.symlink_to(secret)
            replaced.append(path)
        return found

    monkeypatch.setattr("lvolfs.bdev.file.as_client", look)
    with secret.open("r+b"), acting_for(THEM):
        with pytest.raises(OSError, match="Permission denied"):
            open_file(str(path))
        replaced.clear()
        path.unlink()
        path.symlink_to(theirs)
        hidden.chmod(0o755)
        with pytest.raises(OSError, match="just been replaced"):
            open_file(str(path))


@pytest.mark.needs_root
def test_who_may_not_open_a_file_is_not_told_who_uses_it(reachable):
    file = reachable / "roots"
    file.write_bytes(bytes(MIB))
    file.chmod(0o600)
    with file.open("r+b"), acting_for(THEM), pytest.raises(OSError, match="Permission denied"):
        open_file(str(file))


@pytest.mark.needs_root
def test_a_hidden_path_to_the_store_is_not_told_from_others(reachable):
    hidden = reachable / "hidden"
    hidden.mkdir(mode=0o700)
    with (
        Lvstore.create(str(hidden / "store"), size=32 * MIB) as store,
        acting_for(THEM),
        pytest.raises(OSError, match="Permission denied"),
    ):
        resolve.open_destination(str(hidden / "store"), store)
