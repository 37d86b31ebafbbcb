"""The whole life of lvols, in random order, against a model; reopened in between."""

import contextlib
import errno
import shutil
import tempfile
from pathlib import Path

import golden
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from lvstore_model import ModelStore
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore

CLUSTER = 4096
STORE_CLUSTERS = 2600
NAMES = [f"l{i}" for i in range(8)]
SIZES = st.sampled_from([0, 1, 2, 5, 511, 512, 513, 600, 1030])
names = st.sampled_from(NAMES)
fractions = st.floats(0, 1, exclude_max=True)


class LvolLife(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lvolfs-life-"))
        self.generation = 0
        self.store = None

    @initialize(block_size=st.sampled_from([512, 4096]))
    def create_store(self, block_size):
        self.path = str(self.folder / "store-0")
        self.store = Lvstore.create(
            self.path,
            size=STORE_CLUSTERS * CLUSTER,
            cluster_size=CLUSTER,
            block_size=block_size,
            md_ratio=4,
        )
        self.model = ModelStore(CLUSTER)
        self.fill = 0
        # a tree to begin with: l0 <- l1 <- l2, and l3 beside l1
        self.create_volume("l2", 600, False)
        self.write("l2", 0.0, 3 * CLUSTER, True)
        self.write("l2", 0.9, CLUSTER + 7, False)
        self.snapshot("l2", "l0")
        self.write("l2", 0.001, CLUSTER, False)
        self.snapshot("l2", "l1")
        self.clone("l0", "l3")

    def teardown(self):
        try:
            if self.store is not None and not self.store.closed:
                self.close_and_judge()
        finally:
            with contextlib.suppress(Exception):
                self.store.close()
            shutil.rmtree(self.folder)

    # -- picking

    def pick(self, name, prefer=None):
        """An lvol that the call suits, or, if name is the last, any; None without one."""
        lvols = self.model.lvols
        names = sorted(lvols)
        if prefer is not None and name != NAMES[-1]:
            names = [n for n in names if prefer(lvols[n])]
        return lvols[names[NAMES.index(name) % len(names)]] if names else None

    def fresh(self, name):
        """A name that is not taken, unless it is the last."""
        start = NAMES.index(name)
        rotated = NAMES[start:] + NAMES[:start]
        if name == NAMES[-1]:
            return name
        return next((n for n in rotated if n not in self.model.lvols), name)

    @contextlib.contextmanager
    def expect(self, *errors):
        """The call fails with one of these errno, if there are any; for want of space it may
        always fail, and then nothing has changed."""
        try:
            yield
        except OSError as error:
            if error.errno not in {*errors, errno.ENOSPC} or not error.strerror:
                raise
            raise Refused from error
        if errors:
            raise AssertionError(f"no error, but one of {errors} was expected")

    # -- rules

    @rule(name=names, size=SIZES, thick=st.booleans())
    def create_volume(self, name, size, thick):
        name = self.fresh(name)
        errors = [errno.EEXIST] if name in self.model.lvols else []
        with contextlib.suppress(Refused):
            with self.expect(*errors):
                self.store.create_volume(name, size * CLUSTER, thick=thick)
            self.model.create(name, size, not thick)

    @rule(name=names, where=fractions, length=st.integers(1, 3 * CLUSTER), aligned=st.booleans())
    def write(self, name, where, length, aligned):
        lvol = self.pick(name, lambda v: not v.read_only)
        if lvol is None or not lvol.num_clusters:
            return
        size = lvol.num_clusters * CLUSTER
        offset = int(where * size)
        if aligned:
            offset -= offset % CLUSTER
            length = -(-length // CLUSTER) * CLUSTER
        length = min(length, size - offset)
        self.fill = (self.fill + 1) % 251
        data = bytes([self.fill + 1]) * length
        with contextlib.suppress(Refused):
            with self.expect(*([errno.EROFS] if lvol.read_only else [])):
                self.store.get(lvol.name).pwrite(data, offset)
            lvol.write(offset, data)
            return
        if not lvol.read_only:
            # a write that ran out of space may have been done in part
            self.learn_content(lvol, offset, length, data)

    @rule(name=names, where=fractions, length=st.integers(0, 5 * CLUSTER), unmap=st.booleans())
    def zero(self, name, where, length, unmap):
        lvol = self.pick(name, lambda v: not v.read_only)
        if lvol is None:
            return
        size = lvol.num_clusters * CLUSTER
        offset = int(where * size)
        length = min(length, size - offset)
        real = self.store.get(lvol.name)
        data = bytes(length)
        with contextlib.suppress(Refused):
            with self.expect(*([errno.EROFS] if lvol.read_only else [])):
                (real.unmap if unmap else real.write_zeroes)(offset, length)
            lvol.write(offset, data)
            self.learn_ownership(lvol)
            return
        if not lvol.read_only:
            self.learn_content(lvol, offset, length, data)

    def learn_ownership(self, lvol):
        real = self.store.get(lvol.name)
        lvol.take_ownership(golden.bits(real.fragmap(), real.num_clusters))

    def learn_content(self, lvol, offset, length, data):
        real = self.store.get(lvol.name)
        before = lvol.content()[offset : offset + length]
        now = real.pread(length, offset)
        for old, new, wanted in zip(before, now, data, strict=True):
            assert new in (old, wanted)
        lvol.write(offset, now)
        self.learn_ownership(lvol)

    @rule(name=names, size=SIZES)
    def resize(self, name, size):
        lvol = self.pick(name, lambda v: not v.read_only and not self.model.children(v))
        if lvol is None:
            return
        fixed = lvol.read_only or self.model.children(lvol)
        with contextlib.suppress(Refused):
            with self.expect(*([errno.EPERM] if fixed else [])):
                self.store.get(lvol.name).resize(size * CLUSTER)
            self.model.resize(lvol, size)
            self.learn_ownership(lvol)

    @rule(name=names, new=names)
    def rename(self, name, new):
        lvol = self.pick(name)
        new = self.fresh(new)
        if lvol is None or new == lvol.name:
            return
        with contextlib.suppress(Refused):
            with self.expect(*([errno.EEXIST] if new in self.model.lvols else [])):
                self.store.get(lvol.name).rename(new)
            del self.model.lvols[lvol.name]
            lvol.name = new
            self.model.lvols[new] = lvol

    @rule(name=names, new=names)
    def snapshot(self, name, new):
        lvol = self.pick(name, lambda v: not v.read_only)
        new = self.fresh(new)
        if lvol is None:
            return
        errors = []
        if new in self.model.lvols:
            errors = [errno.EEXIST]
        elif lvol.read_only:
            errors = [errno.EPERM]
        xattrs = {"made-from": lvol.name.encode()}
        with contextlib.suppress(Refused):
            with self.expect(*errors):
                self.store.get(lvol.name).snapshot(new, xattrs)
            self.model.snapshot(lvol, new, xattrs)

    @rule(name=names, new=names)
    def clone(self, name, new):
        lvol = self.pick(name, lambda v: v.read_only)
        new = self.fresh(new)
        if lvol is None:
            return
        errors = []
        if new in self.model.lvols:
            errors = [errno.EEXIST]
        elif not lvol.read_only:
            errors = [errno.EINVAL]
        with contextlib.suppress(Refused):
            with self.expect(*errors):
                self.store.get(lvol.name).clone(new)
            self.model.clone(lvol, new)

    @rule(name=names)
    def delete(self, name):
        lvol = self.pick(name, lambda v: v.parent or v.read_only)
        if lvol is None:
            return
        busy = len(self.model.children(lvol)) > 1
        with contextlib.suppress(Refused):
            with self.expect(*([errno.EBUSY] if busy else [])):
                self.store.get(lvol.name).delete()
            clones = self.model.children(lvol)
            self.model.delete(lvol)
            for clone in clones:
                self.learn_ownership(clone)

    @rule(name=names)
    def inflate(self, name):
        lvol = self.pick(name, lambda v: v.parent and v.read_only)
        if lvol is None:
            return
        with contextlib.suppress(Refused):
            with self.expect():
                self.store.get(lvol.name).inflate()
            self.model.inflate(lvol)
            return
        self.learn_ownership(lvol)

    @rule(name=names)
    def decouple(self, name):
        lvol = self.pick(name, lambda v: v.parent)
        if lvol is None:
            return
        with contextlib.suppress(Refused):
            with self.expect(*([] if lvol.parent else [errno.EINVAL])):
                self.store.get(lvol.name).decouple()
            self.model.decouple(lvol)
        self.learn_ownership(lvol)

    @rule(name=names)
    def detach(self, name):
        lvol = self.pick(name, lambda v: v.parent)
        if lvol is None:
            return
        with contextlib.suppress(Refused):
            with self.expect(*([] if lvol.parent else [errno.EINVAL])):
                self.store.get(lvol.name).detach()
            lvol.parent = None

    @rule(name=names, parent=names)
    def set_parent(self, name, parent):
        lvol = self.pick(name, lambda v: v.thin)
        new = self.pick(parent, lambda v: v.read_only)
        if lvol is None or new is None:
            return
        errors = []
        ancestor = new
        while ancestor is not None and ancestor is not lvol:
            ancestor = ancestor.parent
        if (
            ancestor is lvol
            or not lvol.thin
            or not new.read_only
            or new.num_clusters > lvol.num_clusters
        ):
            errors = [errno.EINVAL]
        elif lvol.parent is new:
            errors = [errno.EEXIST]
        with contextlib.suppress(Refused):
            with self.expect(*errors):
                self.store.get(lvol.name).set_parent(self.store.get(new.name))
            lvol.parent = new

    @rule(name=names)
    def set_read_only(self, name):
        lvol = self.pick(name)
        if lvol is None or lvol.parent is None:
            return
        with contextlib.suppress(Refused):
            with self.expect():
                self.store.get(lvol.name).set_read_only()
            lvol.read_only = True

    @rule(name=names, xattr=st.sampled_from(["a", "b", "é"]), value=st.binary(max_size=4000))
    def set_xattr(self, name, xattr, value):
        lvol = self.pick(name, lambda v: not v.read_only)
        if lvol is None:
            return
        with contextlib.suppress(Refused):
            with self.expect(*([errno.EPERM] if lvol.read_only else [])):
                self.store.get(lvol.name).set_xattr(xattr, value)
            lvol.xattrs[xattr] = value

    # -- reopening

    def close_and_judge(self):
        self.store.close()
        assert check_store(self.path) == []
        with SpdkStore(self.path) as other:
            assert other.clean == 1
            other.assert_consistent()
            lvols = other.lvols()
            assert set(lvols) == set(self.model.lvols)
            for name, lvol in self.model.lvols.items():
                blob = lvols[name]
                assert {i for i, c in enumerate(blob.clusters) if c} == set(lvol.own)
                assert blob.thin == lvol.thin
                assert blob.read_only == lvol.read_only
                assert other.content(blob) == lvol.content()

    @rule()
    def reopen_clean(self):
        self.close_and_judge()
        self.store = Lvstore.open(self.path)
        assert not self.store.replayed

    @rule()
    def reopen_after_flush(self):
        """The state of the process is lost, what was flushed is not."""
        self.store.flush()
        self.generation += 1
        copy = str(self.folder / f"store-{self.generation}")
        shutil.copyfile(self.path, copy)
        self.store.close()
        Path(self.path).unlink()
        self.path = copy
        dirty = int.from_bytes(Path(copy).read_bytes()[16:20], "little") == 0
        self.store = Lvstore.open(self.path)
        assert self.store.replayed == dirty
        assert self.store.damaged == []

    # -- what holds after every step

    @invariant()
    @precondition(lambda self: self.store is not None)
    def same_as_the_model(self):
        lvols = {lvol.name: lvol for lvol in self.store.lvols}
        assert set(lvols) == set(self.model.lvols)
        for name, expected in self.model.lvols.items():
            lvol = lvols[name]
            assert lvol.num_clusters == expected.num_clusters
            assert (lvol.parent.name if lvol.parent else None) == (
                expected.parent.name if expected.parent else None
            )
            assert lvol.is_thin == expected.thin
            assert lvol.is_read_only == expected.read_only
            assert set(golden.bits(lvol.fragmap(), lvol.num_clusters)) == set(expected.own)
            assert lvol.pread(lvol.size, 0) == expected.content()
            assert {x: lvol.get_xattr(x) for x in lvol.list_xattrs()} == expected.xattrs
        owned = sum(len(lvol.own) for lvol in self.model.lvols.values())
        assert self.store.free_clusters == self.store.total_clusters - owned


class Refused(Exception):  # noqa: N818
    pass


LvolLife.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLvolLife = pytest.mark.timeout(600)(LvolLife.TestCase)
