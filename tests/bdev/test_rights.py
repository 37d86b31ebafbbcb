"""What runs with the rights of a client."""

import errno
import os
import threading

import pytest

from lvolfs.bdev.rights import Client, acting_for, as_client

NOBODY = 65534
THEM = Client(NOBODY, NOBODY, (NOBODY,))


def test_no_thread_to_be_had(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with acting_for(THEM), pytest.raises(OSError, match="no further thread") as info:
        as_client(os.stat, "/")
    assert info.value.errno == errno.ENOMEM
