"""The host's file system makes some requests wait: all others are answered meanwhile."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MIB, Mounted, both_transports, pattern, run

PROCESSORS = len(os.sched_getaffinity(0))


@contextlib.contextmanager
def host_file_system(image: Path, where: Path) -> Iterator[None]:
    """ext4 on a loop device, to be frozen without harm to anybody else."""
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    run("mkfs.ext4", "-q", image)
    where.mkdir()
    run("mount", "-o", "loop", image, where)
    try:
        yield
    finally:
        # Of a test that has failed the daemon still has the store open.
        run("umount", "--lazy", where)


@contextlib.contextmanager
def frozen(where: Path) -> Iterator[None]:
    run("fsfreeze", "--freeze", where)
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", where)


def in_threads(functions: list[Callable[[Path], None]], path: Path) -> None:
    threads = [threading.Thread(target=function, args=(path,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def look_for_nothing(directory: Path) -> None:
    for number in range(50):
        assert not (directory / f"nothing{number}").exists()


@pytest.mark.needs_loop_devices
@both_transports
def test_writes_that_hang_hold_up_nobody_else(
    make_mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """As many of them as leave one thread, of the lane or of a queue."""
    mounted = make_mounted(size=64 * MIB, start=False)
    host = tmp_path / "host"
    with host_file_system(tmp_path / "host.img", host):
        store = host / "store"
        store.write_bytes(mounted.store_path.read_bytes())
        mounted.store_path = store
        mounted.start()
        file = mounted.volumes / "v"
        content = pattern(8 * MIB)
        file.write_bytes(content)
        with file.open("r+b", buffering=0) as volume:
            os.fsync(volume.fileno())

            def write(number: int) -> None:
                os.pwrite(volume.fileno(), pattern(4096, seed=number), number * MIB)

            def read(answered: list[bytes]) -> None:
                for number in range(200):
                    answered.append(os.pread(volume.fileno(), 4096, 7 * MIB + number * 4096))
                (mounted.volumes / "v").stat()
                answered.append(b"and a stat")

            # Requests that Python answers come and go before: that changes who serves what.
            in_threads([look_for_nothing] * 8, mounted.volumes)
            writers = [
                threading.Thread(target=write, args=(number,)) for number in range(PROCESSORS + 1)
            ]
            answered: list[bytes] = []
            reader = threading.Thread(target=read, args=(answered,))
            with frozen(host):
                for writer in writers:
                    writer.start()
                time.sleep(0.2)
                assert all(writer.is_alive() for writer in writers), "the writes did not hang"
                reader.start()
                reader.join(30)
                answers = len(answered)
            for thread in [*writers, reader]:
                thread.join(20)
                assert not thread.is_alive(), "a request hangs after the thaw"
            assert answers == 201, "reads were held up by writes that hung"
            for number, found in enumerate(answered[:200]):
                place = 7 * MIB + number * 4096
                assert found == content[place : place + 4096]
            for number in range(len(writers)):
                assert os.pread(volume.fileno(), 4096, number * MIB) == pattern(4096, seed=number)
        mounted.unmount()


@both_transports
def test_reads_of_what_the_host_has_dropped(mounted: Mounted) -> None:
    """Half of the pages are in the page cache, half have to come from the disk."""
    content = pattern(32 * MIB)
    file = mounted.volumes / "v"
    file.write_bytes(content)
    with file.open("rb", buffering=0) as volume, mounted.store_path.open("rb") as store:
        os.fsync(volume.fileno())
        for round_ in range(3):
            step = 65536 << round_
            for offset in range(0, mounted.store_path.stat().st_size, 2 * step):
                os.posix_fadvise(store.fileno(), offset, step, os.POSIX_FADV_DONTNEED)
            wrong: list[int] = []
            readers = [
                threading.Thread(target=read_all, args=(volume.fileno(), content, size, wrong))
                for size in (4096, 100_000, MIB)
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(60)
                assert not reader.is_alive()
            assert not wrong


def read_all(descriptor: int, content: bytes, size: int, wrong: list[int]) -> None:
    for offset in range(0, len(content), size):
        if os.pread(descriptor, size, offset) != content[offset : offset + size]:
            wrong.append(offset)
