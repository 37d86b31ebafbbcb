"""Files and block devices as destinations: what is accepted, what is refused and why."""

import errno
import fcntl
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvolfs.bdev.file import open_file
from lvolfs.lvstore.store import Lvstore
from tests.loop_device import loop_device

SIZE = 1 << 20


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "destination"
    found.write_bytes(b"\xee" * SIZE)
    return found


def refused(code, path, match):
    with pytest.raises(OSError, match=match) as caught:
        open_file(str(path))
    assert caught.value.errno == code


def test_opens_writes_and_lets_go(path):
    with open_file(str(path)) as found:
        assert (found.kind, found.size) == ("file", SIZE)
        found.endpoint.pwrite(b"hello", 5)
        found.endpoint.flush()
        with pytest.raises(OSError, match="past the end"):
            found.endpoint.pwrite(b"hello", SIZE - 1)
        refused(errno.EBUSY, path, "is locked by")
    assert path.read_bytes()[:10] == b"\xee" * 5 + b"hello"
    open_file(str(path)).close()


def test_what_is_not_there_or_no_file(tmp_path):
    refused(errno.ENOENT, tmp_path / "nothing", "must exist")
    refused(errno.EINVAL, tmp_path, "neither a regular file nor a block device")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(errno.EINVAL, fifo, "neither a regular file nor a block device")
    refused(errno.EINVAL, "/dev/null", "neither a regular file nor a block device")


def test_open_for_writing_in_another_process(path):
    code = "import sys; f = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"open\n"
        refused(errno.EBUSY, path, rf"open for writing elsewhere: process \S+ \({writer.pid}\)")
        writer.stdin.close()
    open_file(str(path)).close()


def test_mapped_for_writing_with_the_descriptor_closed(path):
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), SIZE)
    refused(errno.EBUSY, path, "open for writing elsewhere")
    mapped.close()
    open_file(str(path)).close()


def test_readers_do_not_matter(path):
    with path.open("rb"):
        open_file(str(path)).close()


def test_locked_by_its_reader(path):
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        refused(errno.EBUSY, path, "is locked by another process")


def test_an_open_store(tmp_path):
    path = tmp_path / "store.img"
    with Lvstore.create(str(path), size=16 << 20, cluster_size=65536):
        refused(errno.EBUSY, path, "is locked by process")
    open_file(str(path)).close()


@pytest.mark.needs_loop_devices
def test_behind_a_loop_device(path):
    with loop_device(path) as device:
        refused(errno.EBUSY, path, f"backing file of {device}")


@pytest.mark.needs_loop_devices
def test_a_block_device(path):
    with loop_device(path) as device:
        with open_file(device) as found:
            assert (found.kind, found.size) == ("block device", SIZE)
            found.endpoint.pwrite(b"hello", 4096)
            found.endpoint.flush()
            refused(errno.EBUSY, device, "in use by the kernel or another process|open for writing")
        with Path(device).open("r+b"):
            refused(errno.EBUSY, device, r"open for writing elsewhere: process")
        open_file(device).close()
    assert path.read_bytes()[4096:4101] == b"hello"


@pytest.mark.needs_loop_devices
def test_a_read_only_block_device(path):
    with loop_device(path, "--read-only") as device:
        refused(errno.EROFS, device, "read-only device")


@pytest.mark.needs_loop_devices
def test_a_mounted_block_device(tmp_path):
    image, where = tmp_path / "image", tmp_path / "mnt"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with loop_device(image) as device:
        subprocess.run(["mount", device, where], check=True)
        try:
            refused(errno.EBUSY, device, f"is mounted at {where}")
        finally:
            subprocess.run(["umount", "-l", where], check=True)
