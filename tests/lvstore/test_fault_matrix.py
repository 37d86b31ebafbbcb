"""Every kind of metadata write, failed in every way: a clear error, a store that can be read, and
after opening it again a consistent one in which nothing that was flushed is lost."""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvolfs._native.device import Device
from lvolfs.blobstore import check as checking
from lvolfs.blobstore.check import check_store
from lvolfs.lvstore import store as opening
from lvolfs.lvstore.store import Lvstore
from tests.crash.write_log import FLUSH, ZERO, read_logs
from tests.torture import count

CLUSTER = 64 << 10
MIB = 1 << 20
PAGE = 4096
# (offset, length) on the device
Range = tuple[int, int]


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(4 * CLUSTER)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The snapshot `base` of `v`, both with data; `v` has a chain of two pages."""
    path = tmp_path_factory.mktemp("matrix") / "store"
    with Lvstore.create(str(path), size=16 * MIB, cluster_size=CLUSTER) as store:
        volume = store.create_volume("v", 8 * CLUSTER)
        volume.pwrite(content(1), 0)
        volume.snapshot("base")
        volume.pwrite(content(2), 2 * CLUSTER)
        volume.set_xattr("long", bytes(3900))
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, pristine: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    path = tmp_path / "store"
    path.write_bytes(pristine)
    return path


# -- the kinds of metadata, what writes them, and where they are


@dataclass(frozen=True)
class Kind:
    """change: what writes it. where: the bytes of the device that it is. number: which of the
    change's writes there, the first is 0. lost: what half of a page costs that stays there."""

    change: Callable[[Lvstore], None]
    where: Callable[[Lvstore], Range]
    number: int = 0
    lost: str | None = None


def superblock(_: Lvstore) -> Range:
    return 0, PAGE


def mask(name: str) -> Callable[[Lvstore], Range]:
    def where(store: Lvstore) -> Range:
        fields = store._superblock
        start, slots = (getattr(fields, f"used_{name}_mask_{part}") for part in ("start", "len"))
        return start * PAGE, slots * PAGE

    return where


def page(store: Lvstore, index: int) -> Range:
    return (store._superblock.md_start + index) * PAGE, PAGE


def first_page(name: str) -> Callable[[Lvstore], Range]:
    return lambda store: page(store, store.get(name).blob.chain[0])


def extent_page(store: Lvstore) -> Range:
    return page(store, store.get("v").blob.extent_pages[0])


def fresh_pages(store: Lvstore) -> Range:
    """The metadata pages that nobody uses."""
    used = max(max(lvol.blob.chain, default=0) for lvol in store.lvols)
    last = max(used, *(max(lvol.blob.extent_pages.values(), default=0) for lvol in store.lvols))
    offset, _ = page(store, last + 1)
    return offset, page(store, store._superblock.md_len)[0] - offset


def change_xattr(store: Lvstore) -> None:
    store.get("v").set_xattr("x", b"1" * 100)


def write_and_flush(store: Lvstore) -> None:
    volume = store.get("v")
    volume.pwrite(b"new", 7 * CLUSTER)
    volume.flush()


def register(algorithm: str) -> Callable[[Lvstore], None]:
    def change(store: Lvstore) -> None:
        job = store.get("base").register_checksums(algorithm=algorithm)
        assert job.wait(60)
        job.raise_if_failed()

    return change


def grow(store: Lvstore) -> None:
    os.truncate(store.path, 20 * MIB)
    store.grow()


def close(store: Lvstore) -> None:
    """Something was changed before, so that there is something to write."""
    store.close()


KINDS = {
    "superblock, first change": Kind(change_xattr, superblock),
    "superblock, growth": Kind(grow, superblock),
    "superblock, not clean at closing": Kind(close, superblock),
    "superblock, clean at closing": Kind(close, superblock, number=1),
    "used page mask": Kind(close, mask("page")),
    "used cluster mask": Kind(close, mask("cluster")),
    "blob id mask": Kind(close, mask("blobid")),
    "first page of a chain": Kind(lambda s: s.get("v").set_read_only(), first_page("v"), lost="v"),
    "further page of a chain": Kind(change_xattr, fresh_pages),
    "first page of a new chain": Kind(lambda s: s.create_volume("w", CLUSTER), fresh_pages),
    "extent page": Kind(write_and_flush, extent_page, lost="v"),
    "new extent page": Kind(lambda s: s.create_volume("w", CLUSTER, thick=True), fresh_pages),
    "checksum table, crc64": Kind(register("crc64"), first_page("base"), lost="base"),
    "checksum table, xxh3": Kind(register("xxh3"), first_page("base"), lost="base"),
    "deleted chain": Kind(lambda s: s.get("base").delete(), first_page("base"), lost="base"),
}
FAULTS = ["no space", "write error", "flush error", "torn once", "torn", "short"]


def plant(store: Lvstore, kind: Kind, fault: str, where: Range, flushes: int) -> None:
    """flushes: how many the change makes before the write in question is durable."""
    device = store.engine.device
    offset, length = where
    place = {"offset": offset, "length": length, "skip": kind.number}
    if fault == "flush error":
        device.plant_fault("flush", errno.EIO, skip=flushes)
    elif fault == "no space":
        device.plant_fault("write", errno.ENOSPC, **place)
    elif fault == "write error":
        device.plant_fault("write", errno.EIO, **place)
    elif fault == "torn once":
        device.plant_fault("write", errno.EIO, cut=512, times=1, **place)
    elif fault == "torn":
        device.plant_fault("write", errno.EIO, cut=512, **place)
    else:
        device.plant_fault("write", 0, cut=512, times=1, **place)


def prepare(path: Path, kind: Kind) -> tuple[Lvstore, Range]:
    store = Lvstore.open(str(path))
    store.engine.stop_flusher()
    if kind.change is close:
        store.get("v").set_xattr("y", b"2")
    return store, kind.where(store)


def flushes_before(path: Path, log: Path, kind: Kind) -> int:
    """How many flushes the change makes before the one that makes its write durable."""
    before = path.read_bytes()
    store, (offset, length) = prepare(path, kind)
    store.engine.device.record(str(log))
    kind.change(store)
    store.close()
    path.write_bytes(before)
    flushes, number = 0, kind.number
    for entry in read_logs([log]):
        if entry.kind == FLUSH:
            flushes += 1
        elif offset <= entry.offset < offset + length and entry.kind <= ZERO:
            if number == 0:
                return flushes
            number -= 1
    raise AssertionError("the change does not write that")


def error_of(call: Callable[[], object]) -> OSError | None:
    try:
        call()
    except OSError as error:
        return error
    return None


def data_are_there(store: Lvstore, lost: str | None = None) -> None:
    """lost: `v` without its data, or `base` and with it `v`, which shows it."""
    if lost is None:
        assert store.get("v").pread(2 * CLUSTER, 0) == content(1)[: 2 * CLUSTER]
        assert store.get("v").pread(4 * CLUSTER, 2 * CLUSTER) == content(2)
    # One of the changes deletes it.
    if lost != "base" and "base" in {lvol.name for lvol in store.lvols}:
        assert store.get("base").pread(4 * CLUSTER, 0) == content(1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_metadata_write_that_fails(path: Path, tmp_path: Path, name: str, fault: str) -> None:
    kind = KINDS[name]
    flushes = flushes_before(path, tmp_path / "log", kind)
    store, where = prepare(path, kind)
    plant(store, kind, fault, where, flushes)
    error = error_of(lambda: kind.change(store))
    injected = store.engine.device.injected_faults
    assert injected
    count("faults injected", injected)
    if fault == "short":
        assert error is None
    else:
        assert error is not None
        assert error.errno == (errno.ENOSPC if fault == "no space" else errno.EIO)
        # It is not the store that is full.
        assert "free clusters" not in str(error)
        assert any(each in str(error) for each in (str(path), "'lvs0'", "'v'", "'base'")), error
    if not store.closed:
        data_are_there(store)
    closing = error_of(store.close)
    assert store.closed
    assert closing is None or closing.errno in (errno.EIO, errno.ENOSPC)
    lost = kind.lost if fault == "torn" else None
    findings = check_store(str(path))
    assert bool([f for f in findings if f.severity == "error"]) == bool(lost), findings
    with Lvstore.open(str(path)) as again:
        assert bool(again.damaged) == bool(lost)
        data_are_there(again, lost)
        if not lost:
            again.create_volume("more", CLUSTER).pwrite(b"goes on", 0)
    if not lost:
        assert check_store(str(path)) == []


# -- reading them


READ = {
    "superblock": (superblock, "store"),
    "used page mask": (mask("page"), None),
    "used cluster mask": (mask("cluster"), None),
    "blob id mask": (mask("blobid"), None),
    "first page of a chain": (first_page("v"), "v"),
    "further page of a chain": (lambda s: page(s, s.get("v").blob.chain[1]), "v"),
    "extent page": (extent_page, "v"),
    "checksum table": (lambda s: page(s, s.get("base").blob.chain[-1]), "base"),
}


@pytest.fixture
def fail_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Range, int, int], None]:
    """Devices that are opened give `cut` bytes of a range, and then that error; 0: the rest."""

    def plant_at_opening(where: Range, error: int, cut: int) -> None:
        def open_device(path: str, **options: bool) -> Device:
            device = Device(path, **options)
            device.plant_fault("read", error, offset=where[0], length=where[1], cut=cut)
            return device

        for module in (opening, checking):
            monkeypatch.setattr(module, "Device", open_device)

    return plant_at_opening


@pytest.mark.parametrize("name", READ)
def test_metadata_that_are_read_short(
    path: Path, fail_reads: Callable[[Range, int, int], None], name: str
) -> None:
    """In two pieces nothing is noticed; where the rest does not come it costs what it is about,
    by name, and only while it does not come."""
    find, lost = READ[name]
    with Lvstore.open(str(path)) as store:
        register("crc64")(store)
        assert len(store.get("v").blob.chain) == 2
        where = find(store)
    before = path.read_bytes()
    fail_reads(where, 0, 512)
    assert check_store(str(path)) == []
    with Lvstore.open(str(path)) as store:
        assert not store.replayed
        data_are_there(store)
    assert path.read_bytes() == before

    fail_reads(where, errno.EIO, 512)
    findings = check_store(str(path))
    assert path.read_bytes() == before
    if lost == "store":
        with pytest.raises(OSError, match="superblock cannot be read") as info:
            Lvstore.open(str(path))
        assert info.value.errno == errno.EIO
        assert [(f.severity, f.object) for f in findings] == [("error", "superblock")]
    else:
        texts = " ".join(finding.text for finding in findings)
        assert "cannot be read" in texts or "Input/output error" in texts
        with Lvstore.open(str(path)) as store:
            assert bool(store.damaged) == bool(lost)
            data_are_there(store, lost)
    fail_reads((0, 0), 0, 0)
    with Lvstore.open(str(path)) as store:
        assert store.damaged == []
        data_are_there(store)
    assert check_store(str(path)) == []


def test_a_superblock_that_cannot_be_read_when_it_is_to_be_marked(path: Path) -> None:
    store = Lvstore.open(str(path))
    store.engine.device.plant_fault("read", errno.EIO, length=PAGE, times=1, cut=100)
    with pytest.raises(OSError, match=str(path)):
        store.create_volume("w", CLUSTER)
    with pytest.raises(OSError, match="failed before"):
        store.create_volume("w", CLUSTER)
    data_are_there(store)
    assert error_of(store.close) is not None
    with Lvstore.open(str(path)) as store:
        data_are_there(store)
    assert check_store(str(path)) == []


# -- a store that is being made


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("fault", ["write error", "no space", "flush error", "torn", "short"])
def test_making_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, number: int, *, existing: bool
) -> None:
    """A file made for it is taken away again; another one holds no store, or an empty one."""
    from lvolfs.lvstore import formatting

    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    path = tmp_path / "store"
    if existing:
        path.write_bytes(b"")
        os.truncate(path, 4 * MIB)
    made: list[Device] = []

    def open_device(path: str, **options: bool) -> Device:
        device = Device(path, **options)
        code = {"no space": errno.ENOSPC, "short": 0}.get(fault, errno.EIO)
        operation = "flush" if fault == "flush error" else "write"
        cut = 512 if fault in ("torn", "short") else 0
        device.plant_fault(operation, code, skip=number, cut=cut)
        made.append(device)
        return device

    monkeypatch.setattr(formatting, "Device", open_device)
    error = error_of(lambda: Lvstore.create(str(path), size=8 * MIB, cluster_size=CLUSTER).close())
    assert sum(device.injected_faults for device in made)
    if fault == "short":
        assert error is None
        assert check_store(str(path)) == []
        return
    assert error is not None
    assert str(path) in str(error)
    assert path.exists() == existing
    monkeypatch.undo()
    with Lvstore.create(str(path), size=8 * MIB, cluster_size=CLUSTER, force=True) as store:
        assert store.lvols == []
    assert check_store(str(path)) == []
