"""Every ioctl and every xattr, with structures and values that no well-behaved program sends.

The handlers of the mount are called as the mount calls them; the answer is the whole structure,
or an OSError. Now and then the store is closed, checked and made anew.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

from lvolfs import ioctls
from lvolfs.blobstore.check import check_store
from lvolfs.delta import checksums, jobs
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import ioctl_calls, xattrs
from tests.fuzz.byte_choices import ByteChoices
from tests.fuzz.limits import ANSWER_SECONDS

CLUSTER = 16 << 10
# A store is used so often before it is looked at and made anew.
CASES_PER_STORE = 200
ALGORITHMS = (0, ioctls.XXH3, ioctls.CRC64, 3, (1 << 32) - 1)
NUMBERS = (0, 1, 2, 7, 8, 599, 600, 601, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
# No path of the host: a copy to one would write there.
TEXTS = (
    *(b"", b"thin", b"snap", b"clone", b"lvs0/clone", b"new", b"..", b"a/b", b"\xff\xfe", b"\0"),
    *(b"copy", b"copy 0-2", b"lvs0/copy", b"0-2 xxh3", b"7 crc64", b"small", b"small 0-1"),
    *(b"0-7", b"0-7,12 crc64", b"crc64", b"xxh3", b"5-1", b"18446744073709551615", b"clone 0-2"),
    *(b"nbd+unix:///nothing?socket=/nonexistent/nbd", b"nbd://", b"n" * 255, b"n" * 300, b"a b c"),
    *("ä€😀".encode(), b"clone 0-2,99999999999999999999", b"0-9223372036854775807"),
)


class Requests:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "requests"
        self._store: Lvstore | None = None
        self._cases = 0

    def close(self) -> None:
        """Ends the store; it must be consistent."""
        if self._store is None:
            return
        registry = jobs.registry(self._store)
        for job in registry.list():
            job.cancel()
        self._store.close()
        self._store = None
        findings = check_store(str(self._path))
        assert findings == [], findings
        self._path.unlink()

    def _fresh(self) -> Lvstore:
        store = Lvstore.create(str(self._path), size=8 << 20, cluster_size=CLUSTER, md_ratio=50)
        thin = store.create_volume("thin", 600 * CLUSTER)
        thin.pwrite(b"1" * 20 * CLUSTER, 0)
        snapshot = thin.snapshot("snap")
        thin.pwrite(b"2" * CLUSTER, CLUSTER)
        snapshot.clone("clone")
        # What copies go to: one that suits all, one that is too small.
        store.create_volume("copy", 600 * CLUSTER)
        store.create_volume("small", 2 * CLUSTER)
        checksums.register(snapshot).wait()
        # And one that has failed.
        job = jobs.Job("copy", lvol="thin", lvol_uuid=thin.uuid, destination="gone")
        jobs.registry(store).add_refused(job, OSError(errno.ENODEV, "the destination is gone"))
        return store

    def run(self, data: bytes) -> None:
        if self._cases % CASES_PER_STORE == 0:
            self.close()
            self._store = self._fresh()
        self._cases += 1
        assert self._store is not None
        choices = ByteChoices(data)
        steps: tuple[Callable[[Lvol, ByteChoices], None], ...] = (
            _ioctl,
            _ioctl_of_fields,
            _set_xattr,
            _read_xattr,
            _remove_xattr,
            _wait_for_jobs,
            _ioctl_of_fields,
            _set_xattr,
            _read_xattr,
            _set_writable,
        )
        for _ in range(8):
            lvols = self._store.lvols
            if not lvols or not choices.left:
                break
            step = choices.one_of(steps)
            try:
                step(choices.one_of(lvols), choices)
            except OSError as error:
                if not error.errno or not error.strerror:
                    raise AssertionError("an error that says nothing") from error


def _safe(raw: bytes) -> bytes:
    """Text that names nothing outside of the store."""
    return raw.replace(b"/", b"_").replace(b":", b"_")


def _text(choices: ByteChoices) -> bytes:
    if choices.below(3):
        return choices.one_of(TEXTS)
    return _safe(choices.take(choices.below(64)))


def _perform(lvol: Lvol, choices: ByteChoices, request: int, data: bytes) -> None:
    argument = ioctl_calls.parse(request, data)
    if isinstance(argument, ioctls.CopyStart) and b"/" in argument.destination:
        argument.destination = b"clone"
    caller = ioctl_calls.Caller(
        lvol, owner=bool(choices.below(8)), mountpoint="/nonexistent", pid=os.getpid()
    )
    answer = ioctl_calls.perform(caller, argument)
    assert len(answer) == len(data)
    assert struct.unpack_from("<I", answer)[0] == len(data)


def _ioctl(lvol: Lvol, choices: ByteChoices) -> None:
    """Raw bytes; the kernel has seen to it that there are as many as the request says."""
    kind = choices.one_of(sorted(ioctls.ARGUMENTS.values(), key=lambda each: each.NUMBER))
    request = kind.request()
    if not choices.below(16):
        request = choices.number(4)
    length = ctypes.sizeof(kind)
    data = bytearray(choices.take(length))
    if choices.below(8):
        data[:4] = struct.pack("<I", length)
    if choices.below(4):
        # What is checked first of all is right, so that the rest is looked at.
        valid = kind.from_buffer(data)
        valid.flags = choices.below(kind.FLAGS + 1)
        for name, _ in kind._fields_:
            if name in {"reserved", "reserved0"}:
                member = getattr(kind, name)
                data[member.offset : member.offset + member.size] = bytes(member.size)
        del valid
    _perform(lvol, choices, request, bytes(data))


def _ioctl_of_fields(lvol: Lvol, choices: ByteChoices) -> None:
    """Every member on its own, the rest as it has to be."""
    kind = choices.one_of(sorted(ioctls.ARGUMENTS.values(), key=lambda each: each.NUMBER))
    argument = kind()
    for name, declared in kind._fields_:
        if name in {"size", "reserved", "reserved0"}:
            continue
        if name == "flags":
            argument.flags = choices.one_of((0, 0, 0, 1, 2, 3, 4))
        elif name == "algorithm":
            setattr(argument, name, choices.one_of(ALGORITHMS))
        elif declared is ctypes.c_uint32 or declared is ctypes.c_uint64:
            limit = 1 << 8 * ctypes.sizeof(declared)
            setattr(argument, name, choices.one_of(NUMBERS) % limit)
        elif declared._type_ is ctypes.c_char:
            setattr(argument, name, _text(choices)[: ctypes.sizeof(declared)])
        else:
            array = getattr(argument, name)
            for position in range(min(len(array), choices.below(8))):
                array[position] = choices.one_of(NUMBERS) & 0xFF
    _perform(lvol, choices, kind.request(), bytes(argument))


def _xattr_name(choices: ByteChoices) -> bytes:
    known = [*xattrs.WRITABLE, *xattrs.READABLE]
    kind = choices.below(4)
    if kind < 2:
        return (xattrs.PREFIX + choices.one_of(known)).encode()
    if kind == 2:
        return choices.one_of(
            [b"user.x", b"user.", b"user", b"", b"security.selinux", b"user.name"]
        )
    # The kernel passes names without NUL, of 255 bytes at most.
    return b"user." + choices.take(choices.below(250)).replace(b"\0", b"0")


def _set_xattr(lvol: Lvol, choices: ByteChoices) -> None:
    name = _xattr_name(choices)
    value = _text(choices) if choices.below(4) else b"v" * choices.below(5000)
    xattrs.write(lvol, name, value, "/nonexistent", os.getpid())


def _set_writable(lvol: Lvol, choices: ByteChoices) -> None:
    """What may be written, with a text that could be meant."""
    name = (xattrs.PREFIX + choices.one_of([*xattrs.WRITABLE])).encode()
    xattrs.write(lvol, name, choices.one_of(TEXTS), "/nonexistent", os.getpid())


def _wait_for_jobs(lvol: Lvol, choices: ByteChoices) -> None:
    """What comes next sees them as they end."""
    del choices
    for job in jobs.registry(lvol.store).list():
        assert job.wait(ANSWER_SECONDS), f"job {job.id} does not end"
        assert "unexpected" not in (job.error or ""), job.error


def _read_xattr(lvol: Lvol, choices: ByteChoices) -> None:
    for name in xattrs.names(lvol):
        assert name
    xattrs.read(lvol, _xattr_name(choices))


def _remove_xattr(lvol: Lvol, choices: ByteChoices) -> None:
    xattrs.remove(lvol, _xattr_name(choices))
