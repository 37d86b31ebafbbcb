"""Every durable step of every change fails once: for want of space it is undone and the store
goes on; with an I/O error the store says so, and opening it again repairs what was begun."""

import errno
import os
import random

import pytest
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10
STEPS = ("persist", "destroy", "write_superblock")


class FailingEngine:
    """An engine of which the n-th durable step fails before it does anything."""

    def __init__(self, engine, fail_at, code):
        self._engine = engine
        self._left = fail_at
        self._code = code
        self.failed_once = False

    def __getattr__(self, name):
        value = getattr(self._engine, name)
        if name not in STEPS or self._left < 0:
            return value

        def step(*arguments):
            self._left -= 1
            if self._left < 0 and not self.failed_once:
                self.failed_once = True
                raise OSError(self._code, os.strerror(self._code))
            return value(*arguments)

        return step


def build(path):
    """v over s2 over s1, each with a cluster of its own, and a second clone of s1."""
    with Lvstore.create(path, size=16 << 20, cluster_size=CLUSTER) as store:
        volume = store.create_volume("v", 4 * CLUSTER)
        for index, name in enumerate(("s1", "s2", None)):
            volume.pwrite(random.Random(index).randbytes(CLUSTER + 10), index * CLUSTER)
            if name:
                volume.snapshot(name)
        store.get("s1").clone("c").pwrite(b"clone", 3 * CLUSTER)
        store.get("s2").set_reserved_xattrs({"checksum": b"12345678"}, bytes(12))


CHANGES = {
    "create": lambda s: s.create_volume("new", CLUSTER),
    "create thick": lambda s: s.create_volume("new", CLUSTER, thick=True),
    "rename": lambda s: s.get("c").rename("new"),
    "rename store": lambda s: s.rename("new"),
    "shrink": lambda s: s.get("v").resize(CLUSTER),
    "grow": lambda s: s.get("v").resize(8 * CLUSTER),
    "snapshot": lambda s: s.get("v").snapshot("new"),
    "clone": lambda s: s.get("s2").clone("new"),
    "delete": lambda s: s.get("c").delete(),
    "merge": lambda s: s.get("s2").delete(),
    "inflate": lambda s: s.get("v").inflate(),
    "decouple": lambda s: s.get("s2").decouple(),
    "detach": lambda s: s.get("c").detach(),
    "set_parent": lambda s: s.get("c").set_parent(s.get("s2")),
    "read-only": lambda s: s.get("v").set_read_only(),
    "xattr": lambda s: s.get("v").set_xattr("x", b"y"),
    "checksums": lambda s: s.get("s2").set_reserved_xattrs({"checksum": None}, b""),
}


def picture(store):
    """All that can be seen of a store."""
    return {
        lvol.name: (
            lvol.pread(lvol.size, 0),
            lvol.parent.name if lvol.parent else None,
            lvol.is_read_only,
            lvol.is_thin,
            sorted(lvol.metadata.xattrs.items()),
        )
        for lvol in store.lvols
    }


def without_identity(seen):
    """New lvols have a uuid and a time of their own each time. Checksums go before the first
    cluster is copied, so that they are gone from an operation that was given up, too."""
    left_out = ("uuid", "creation_time", "checksum")
    return {
        name: (*rest, [item for item in xattrs if item[0] not in left_out])
        for name, (*rest, xattrs) in seen.items()
    }


def outcomes(path, change):
    """What is seen before and after the change, when nothing fails."""
    build(path)
    with Lvstore.open(path) as store:
        before = without_identity(picture(store))
        change(store)
        return before, without_identity(picture(store))


@pytest.mark.parametrize("name", CHANGES)
def test_no_space_in_a_step(tmp_path, name):
    change = CHANGES[name]
    before, after = outcomes(str(tmp_path / "model"), change)
    for step in range(10):
        path = str(tmp_path / f"store-{step}")
        build(path)
        store = Lvstore.open(path)
        engine = store.engine
        store.engine = FailingEngine(engine, step, errno.ENOSPC)
        try:
            change(store)
            refused = False
        except OSError as error:
            refused = error.errno == errno.ENOSPC or name == "shrink"
        failed = store.engine.failed_once
        store.engine = engine
        if name == "shrink" and failed:
            # what is cut off cannot be had back
            with pytest.raises(OSError, match="No space left"):
                store.close()
            continue
        if name in ("delete", "merge") and refused and step == {"delete": 0, "merge": 2}[name]:
            # zeroing a page needs no space: such an error is taken for a failing device
            with pytest.raises(OSError, match="No space left"):
                store.close()
            continue
        seen = without_identity(picture(store))
        assert seen == (before if refused else after)
        store.create_volume("goes-on", CLUSTER).pwrite(b"x", 0)
        store.close()
        assert check_store(path) == []
        with SpdkStore(path) as other:
            other.assert_consistent()
        with Lvstore.open(path) as store:
            store.get("goes-on").delete()
            assert without_identity(picture(store)) == seen
        if not failed:
            return
    raise AssertionError("more steps than expected")


@pytest.mark.parametrize("name", CHANGES)
def test_io_error_in_a_step(tmp_path, name):
    change = CHANGES[name]
    before, after = outcomes(str(tmp_path / "model"), change)
    for step in range(10):
        path = str(tmp_path / f"store-{step}")
        build(path)
        store = Lvstore.open(path)
        engine = store.engine
        store.engine = FailingEngine(engine, step, errno.EIO)
        try:
            change(store)
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017
        failed = store.engine.failed_once
        store.engine = engine
        if not failed:
            store.close()
            return
        # it can be read, but not be changed any more, and closing says so
        assert store.get("s1").pread(CLUSTER, 0) == before["s1"][0][:CLUSTER]
        with pytest.raises(OSError, match="failed before"):
            store.create_volume("more", CLUSTER)
        with pytest.raises(OSError, match="Input/output error"):
            store.close()
        with Lvstore.open(path) as store:
            assert store.damaged == []
            assert without_identity(picture(store)) in (before, after)
        assert check_store(path) == []
        with SpdkStore(path) as other:
            other.assert_consistent()
    raise AssertionError("more steps than expected")
