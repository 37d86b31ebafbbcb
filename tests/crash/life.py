"""A small store that is recorded while it lives, one operation after the other.

Every sector that is written carries a number of its own, so that a state after a cut tells
for each sector which write it shows.
"""

from __future__ import annotations

import os
import random
import threading
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lvolfs._native.device import Device
from lvolfs.delta import checksums
from lvolfs.lvstore import formatting
from lvolfs.lvstore import store as store_module
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from tests.crash.view import View, view_of
from tests.crash.write_log import EXTENDED, SECTOR, Disk, Entry, read_logs
from tests.image_editor import ImageEditor, to_run_length

# Mistakes that are planted here instead of in the engine: what Python flushes, the masks before
# the superblock that vouches for them, and a file's new size, is not flushed.
MISTAKES = {"unflushed"}
EXTERNAL_ID = "11111111-2222-4333-8444-555555555555"
# One operation: its name, and the arguments of Life.do_NAME.
Operation = tuple[Any, ...]

# When they have returned, they are durable, and so is everything before them. All of them are
# changes of shape, which are there completely or not at all, but for the second group.
CHANGES = {
    *("format", "create", "create_external", "snapshot", "clone", "delete", "resize"),
    *("inflate", "decouple", "detach", "set_parent", "set_external_parent", "rename"),
    *("rename_store", "set_xattr", "remove_xattr", "register", "set_read_only", "grow", "extend"),
}
DURABLE = CHANGES | {"flush", "parallel", "copy", "close", "reopen"}


@dataclass(frozen=True)
class Geometry:
    """Of the store, in clusters where nothing else is said.

    base: "made" before the recording begins, "run-length" with lvols in it that are kept as
    older SPDK kept them; "unmade" and "foreign" have to be formatted first, the latter over
    another store.
    """

    cluster_size: int = 8192
    clusters: int = 176
    md_ratio: int = 60
    block_size: int = 4096
    volume: int = 6
    base: str = "made"


@dataclass(frozen=True)
class Step:
    """durable: when it has ended, everything up to it is. shape: it changes more than data."""

    text: str
    durable: bool
    shape: bool
    view: View


def content(number: int, sectors: int) -> bytes:
    """`sectors` sectors, numbered from `number` on."""
    words = array("Q")
    for sector in range(number, number + sectors):
        words.extend([sector] * (SECTOR // 8))
    return words.tobytes()


class _UnflushedDevice(Device):
    def flush(self) -> None:
        pass


class Life:
    """Mark 2k is the beginning of step k, 2k+1 its end."""

    def __init__(self, directory: Path, geometry: Geometry, fault: str | None = None) -> None:
        self.geometry = geometry
        self.path = directory / "store.img"
        self.external = directory / "external.img"
        self.operations: list[Operation] = []
        self.steps: list[Step] = []
        self.store: Lvstore | None = None
        self.metadata_end = 0
        self._directory = directory
        self._fault = fault
        self._logs: list[Path] = []
        self._device: Device | None = None
        self.external.write_bytes(content(1 << 40, 4 * geometry.cluster_size // SECTOR))
        self.externals = {EXTERNAL_ID: str(self.external)}
        self._make_base()
        self.base = self.path.read_bytes()
        self._begin()

    # -- before the recording

    def _make_base(self) -> None:
        g = self.geometry
        size = g.clusters * g.cluster_size
        if g.base == "unmade":
            with self.path.open("wb") as file:
                file.truncate(size)
            return
        with self._create(size, "crash", force=False) as store:
            if g.base == "made":
                return
            for number, name in enumerate(("old0", "old1")):
                lvol = store.create_volume(name, g.volume * g.cluster_size)
                lvol.pwrite(content(1 << 41 | number << 20, 3 * g.cluster_size // SECTOR), 512)
        if g.base == "run-length":
            for name in ("old0", "old1"):
                to_run_length(ImageEditor(self.path), name)

    def _create(self, size: int, name: str, *, force: bool) -> Lvstore:
        g = self.geometry
        return Lvstore.create(
            str(self.path),
            size=size,
            cluster_size=g.cluster_size,
            name=name,
            block_size=g.block_size,
            md_ratio=g.md_ratio,
            force=force,
            external_snapshots=self.externals,
        )

    def _begin(self) -> None:
        if self.geometry.base in {"unmade", "foreign"}:
            self.do("format")
            return
        self._open()
        self.steps.append(Step("nothing", True, True, view_of(self._opened)))
        self._mark(0)
        self._mark(1)

    # -- the recording

    def _recorded(self, path: str, **options: Any) -> Device:
        """Takes the place of Device where a store is made or opened."""
        made = _UnflushedDevice if self._fault == "unflushed" else Device
        device = made(path, **options)
        self._logs.append(self._directory / f"writes.{len(self._logs)}")
        device.record(str(self._logs[-1]))
        self._device = device
        if not self.steps:
            self._mark(0)
        return device

    def _patched(self) -> ExitStack:
        patches = ExitStack()
        patches.enter_context(patch.object(store_module, "Device", self._recorded))
        patches.enter_context(patch.object(formatting, "Device", self._recorded))
        return patches

    def _open(self) -> None:
        with self._patched():
            self._take(Lvstore.open(str(self.path), external_snapshots=self.externals))

    def _take(self, store: Lvstore) -> None:
        self.store = store
        engine = store.engine
        engine.stop_flusher()
        self.metadata_end = engine.metadata_clusters * store.cluster_size
        if self._fault is not None and self._fault not in MISTAKES:
            engine.seed_fault(self._fault)

    @property
    def _opened(self) -> Lvstore:
        assert self.store is not None
        return self.store

    def _mark(self, number: int) -> None:
        if self._device is not None and not self._device.closed:
            self._device.mark(number)

    def entries(self) -> list[Entry]:
        """What has been recorded."""
        return read_logs(self._logs)

    def repair(self, disk: Disk, place: Path, *, force_replay: bool) -> tuple[bytes, list[Entry]]:
        """Opens and closes a copy, in `place`, of what the disk shows: the copy as it was, and
        the log of that."""
        path, log = place / "store.img", place / "writes"
        base = disk.content()
        path.write_bytes(base)

        def recorded(path: str, **options: Any) -> Device:
            device = Device(path, **options)
            device.record(str(log))
            return device

        with patch.object(store_module, "Device", recorded):
            Lvstore.open(
                str(path), external_snapshots=self.externals, force_replay=force_replay
            ).close()
        return base, read_logs([log])

    def close(self) -> None:
        """The last step, unless it has been done."""
        if self.store is not None and not self.store.closed:
            self.do("close")

    def do(self, kind: str, *arguments: Any) -> None:
        """One step. An operation that fails is a step that promises nothing."""
        number = len(self.steps)
        operation = (kind, *arguments)
        self.operations.append(operation)
        action: Callable[..., None] = getattr(self, f"do_{kind}")
        self._mark(2 * number)
        text, durable, shape = " ".join(map(str, operation)), kind in DURABLE, kind in CHANGES
        try:
            action(*arguments)
        except OSError as error:
            text, durable, shape = f"{text}: {error}", False, False
        before = self.steps[-1].view if self.steps else None
        if self.store is not None and not self.store.closed:
            before = view_of(self._opened, before)
        assert before is not None
        self._mark(2 * number + 1)
        self.steps.append(Step(text, durable, shape, before))

    def _get(self, name: str) -> Lvol:
        return self._opened.get(name)

    def _bytes(self, clusters: int) -> int:
        return clusters * self.geometry.cluster_size

    # -- the store

    def do_format(self) -> None:
        with self._patched():
            self._take(self._create(self._bytes(self.geometry.clusters), "crash", force=True))

    def do_close(self) -> None:
        self._opened.close()

    def do_reopen(self) -> None:
        self._opened.close()
        self._open()

    def do_rename_store(self, name: str) -> None:
        self._opened.rename(name)

    def do_grow(self, clusters: int) -> None:
        """The file is extended by so many clusters, and the store takes them over."""
        size = self.path.stat().st_size + self._bytes(clusters)
        os.truncate(self.path, size)
        self._mark(EXTENDED | size)
        self._opened.grow()

    # -- data; sectors count from the beginning of the lvol

    def do_write(self, name: str, sector: int, count: int, number: int) -> None:
        lvol, data = self._get(name), content(number, count)
        lvol.pwrite(data, sector * SECTOR)
        if lvol.pread(len(data), sector * SECTOR) != data:
            raise AssertionError(f"{name} does not show what was written to it")

    def do_unmap(self, name: str, sector: int, count: int) -> None:
        self._get(name).unmap(sector * SECTOR, count * SECTOR)

    def do_write_zeroes(self, name: str, sector: int, count: int) -> None:
        self._get(name).write_zeroes(sector * SECTOR, count * SECTOR)

    def do_allocate(self, name: str, sector: int, count: int) -> None:
        self._get(name).allocate(sector * SECTOR, count * SECTOR)

    def do_flush(self) -> None:
        self._opened.flush()

    def do_parallel(self, *plans: tuple[Operation, ...]) -> None:
        """One thread for each plan, which flushes after each of its operations."""
        errors: list[BaseException] = []

        def work(plan: tuple[Operation, ...]) -> None:
            try:
                for kind, *arguments in plan:
                    getattr(self, f"do_{kind}")(*arguments)
                    self._opened.flush()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(plan,)) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._opened.flush()
        if errors:
            raise errors[0]

    def do_copy(self, source: str, destination: str, clusters: list[int] | None) -> None:
        job = self._get(source).shallow_copy(destination, clusters)
        job.wait()
        job.raise_if_failed()

    # -- shape

    def do_create(self, name: str, clusters: int, thick: bool) -> None:
        self._opened.create_volume(name, self._bytes(clusters), thick=thick)

    def do_create_external(self, name: str) -> None:
        self._opened.create_external_clone(name, str(self.external), snapshot_id=EXTERNAL_ID)

    def do_snapshot(self, name: str, snapshot: str) -> None:
        self._get(name).snapshot(snapshot)

    def do_clone(self, name: str, clone: str) -> None:
        self._get(name).clone(clone)

    def do_delete(self, name: str) -> None:
        self._get(name).delete()

    def do_resize(self, name: str, clusters: int) -> None:
        self._get(name).resize(self._bytes(clusters))

    def do_extend(self, name: str, clusters: int) -> None:
        """Growth as writes past a file's end cause it: in memory, durable with the next flush.
        The flush before makes it the only thing that this flush has to do with a shape."""
        lvol = self._get(name)
        lvol.flush()
        lvol.extend(self._bytes(clusters))
        lvol.flush()

    def do_inflate(self, name: str) -> None:
        self._get(name).inflate()

    def do_decouple(self, name: str) -> None:
        self._get(name).decouple()

    def do_detach(self, name: str) -> None:
        self._get(name).detach()

    def do_set_parent(self, name: str, parent: str) -> None:
        self._get(name).set_parent(self._get(parent))

    def do_set_external_parent(self, name: str) -> None:
        self._get(name).set_external_parent(str(self.external), EXTERNAL_ID)

    def do_set_read_only(self, name: str) -> None:
        self._get(name).set_read_only()

    def do_rename(self, name: str, new: str) -> None:
        self._get(name).rename(new)

    def do_set_xattr(self, name: str, key: str, length: int) -> None:
        value = random.Random(f"{name} {key} {len(self.steps)}").randbytes(length)
        self._get(name).set_xattr(key, value)

    def do_remove_xattr(self, name: str, key: str) -> None:
        self._get(name).remove_xattr(key)

    def do_register(self, name: str, algorithm: str, first: int | None) -> None:
        """Checksums of all clusters, or of those from `first` on."""
        lvol = self._get(name)
        wanted = None if first is None else [range(first, lvol.num_clusters)]
        job = checksums.register(lvol, wanted, algorithm=algorithm)
        job.wait()
        job.raise_if_failed()
