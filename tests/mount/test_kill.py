"""The daemon is killed at random moments under load; nothing that was flushed may be lost.

LVOLFS_KILLS sets how often (default 10), LVOLFS_KILL_SEED where chance begins.
"""

import contextlib
import errno
import hashlib
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvolfs.blobstore.check import check_store
from tests.mount.conftest import MIB, Mounted, both_transports
from tests.torture import count

KILLS = int(os.environ.get("LVOLFS_KILLS", "10"))
SEED = int(os.environ.get("LVOLFS_KILL_SEED", "1"))
BLOCK = 4096
VOLUME = 8 * MIB
WRITERS = 3
MOST_SNAPSHOTS = 12
# What calls on a mount say whose daemon has died.
DEAD = {
    errno.ENOTCONN,
    errno.ECONNABORTED,
    errno.ECANCELED,  # on its way into a ring of the daemon
    errno.EIO,
    errno.ENODEV,
    errno.EBADF,
}


class Writer:
    """Writes numbered blocks to one volume, and remembers which of them it flushed."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.number = 0
        self.issued: dict[int, list[int]] = {}
        self.durable: dict[int, int] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._write_until_the_end()
        except OSError as error:
            if error.errno not in DEAD:
                self.failure = error
        except BaseException as error:
            self.failure = error

    def _write_until_the_end(self) -> None:
        fd = os.open(self.path, os.O_RDWR)
        try:
            while True:
                written = {}
                for _ in range(self.chance.randrange(1, 12)):
                    block = self.chance.randrange(VOLUME // BLOCK)
                    self.number += 1
                    self.issued.setdefault(block, []).append(self.number)
                    os.pwrite(fd, struct.pack("<Q", self.number) * (BLOCK // 8), block * BLOCK)
                    written[block] = self.number
                os.fsync(fd)
                self.durable.update(written)
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)

    def check(self, content: bytes) -> None:
        """Every block shows its last flushed number or a later one that was issued."""
        for block in range(VOLUME // BLOCK):
            data = content[block * BLOCK : (block + 1) * BLOCK]
            (number,) = struct.unpack_from("<Q", data)
            assert data == struct.pack("<Q", number) * (BLOCK // 8), f"block {block} is torn"
            least = self.durable.get(block, 0)
            assert number >= least, f"{self.path.name}: block {block} lost write {least}"
            assert number == 0 or number in self.issued.get(block, []), f"block {block}: {number}"

    def settle(self, content: bytes) -> None:
        """What is there now is what the next round starts from."""
        for block in range(VOLUME // BLOCK):
            (number,) = struct.unpack_from("<Q", content, block * BLOCK)
            self.durable[block] = number
            self.issued[block] = [number]


class Controller:
    """Snapshots, checksums, copies and deletions by xattrs, as long as the daemon lives."""

    def __init__(self, mounted: Mounted, seed: int) -> None:
        self.mounted = mounted
        self.chance = random.Random(seed)
        self.digests: dict[str, str] = {}
        self.count = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                self._one()
        except OSError as error:
            if error.errno not in DEAD:
                self.failure = error
        except BaseException as error:
            self.failure = error

    def _one(self) -> None:
        names = sorted(self.digests)
        kind = self.chance.random()
        # Bounded in number, however long it runs: a full store would end it.
        if len(names) < 3 or (kind < 0.3 and len(names) < MOST_SNAPSHOTS):
            self.count += 1
            name = f"s{self.count}"
            volume = self.mounted.volumes / f"v{self.chance.randrange(WRITERS)}"
            os.setxattr(volume, "user.lvolfs.snapshot", name.encode())
            content = (self.mounted.snapshots / name).read_bytes()
            self.digests[name] = hashlib.sha256(content).hexdigest()
        elif kind < 0.6:
            name = self.chance.choice(names)
            digest = self.digests.pop(name)
            try:
                (self.mounted.snapshots / name).unlink()
            except OSError as error:
                # A snapshot with several clones, or one that is being hashed or copied.
                if error.errno != errno.EBUSY:
                    raise
                self.digests[name] = digest
        else:
            path = self.mounted.snapshots / self.chance.choice(names)
            call = self.chance.choice([("checksum.register", b""), ("copy.start", b"copied")])
            try:
                os.setxattr(path, f"user.lvolfs.{call[0]}", call[1])
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            time.sleep(self.chance.random() * 0.02)


def verify_load(mounted: Mounted) -> subprocess.Popen[bytes]:
    """fio with verification on a volume of its own; it ends when its file does."""
    return subprocess.Popen(
        [
            *("fio", "--name=load", f"--filename={mounted.volumes / 'load'}", "--rw=randwrite"),
            *("--bs=4k-64k", "--ioengine=libaio", "--iodepth=8", "--direct=1", "--size=16M"),
            *("--verify=crc32c", "--verify_backlog=64", "--loops=1000", "--fsync=32"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=mounted.directory,
    )


def check_after_crash(mounted: Mounted, writers: list[Writer], controller: Controller) -> None:
    for writer in writers:
        content = writer.path.read_bytes()
        writer.check(content)
        writer.settle(content)
    for name, digest in controller.digests.items():
        content = (mounted.snapshots / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, f"snapshot {name} has changed"
    # Those whose making or removal was cut short: there or not, but not for ever.
    for path in mounted.snapshots.iterdir():
        if path.name not in controller.digests:
            path.unlink()


@both_transports
@pytest.mark.timeout(60 + 20 * KILLS)
def test_what_was_flushed_survives_every_kill(make_mounted: Callable[..., Mounted]) -> None:
    mounted = make_mounted(size=256 * MIB, cluster_size=256 * 1024)
    chance = random.Random(SEED)
    for name in [*(f"v{n}" for n in range(WRITERS)), "load", "copied"]:
        (mounted.volumes / name).touch()
        os.truncate(mounted.volumes / name, 16 * MIB if name == "load" else VOLUME)
    writers = [Writer(mounted.volumes / f"v{n}", chance.getrandbits(32)) for n in range(WRITERS)]
    controller = Controller(mounted, chance.getrandbits(32))
    for round_ in range(KILLS):
        load = verify_load(mounted)
        threads = [threading.Thread(target=each.run) for each in [*writers, controller]]
        for thread in threads:
            thread.start()
        time.sleep(0.1 + chance.random())
        mounted.kill()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), f"round {round_}: a call hangs on the dead mount"
        load.wait(30)
        for each in [*writers, controller]:
            if each.failure is not None:
                raise each.failure
        before = [item for item in check_store(str(mounted.store_path)) if item.severity == "error"]
        assert before == []
        mounted.start()
        check_after_crash(mounted, writers, controller)
        print(f"kill {round_ + 1} survived", flush=True)
    assert sum(len(writer.durable) for writer in writers) > 100
    count("kills survived", KILLS)
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []
