"""Files to run fio on, one per contestant, each with the same content of the same size."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.content import Content
from bench.page_cache import kept_warm
from bench.processes import LVOLFS, ProgramError, daemon, execute, lvolfs, mounted, unmount
from bench.settings import MIB

ROOT = Path(__file__).parents[2]
BARE_SOURCE = Path(__file__).with_name("bare_fuse.c")
ALLOW_URING = Path("/sys/module/fuse/parameters/enable_uring")


def copy_content(content: Path, target: Path, block: str = "1M") -> None:
    options = (f"bs={block}", "conv=notrunc,fsync", "status=none")
    execute("dd", f"if={content}", f"of={target}", *options)


STORE_PIECE = 16 << 10
"""In what pieces lvolfs writes a store on ext4; other ones would make the page cache of a file
slower to read, or up to twice as slow to overwrite, and so do it for contestants."""


def write_image(content: Path, image: Path) -> None:
    copy_content(content, image, str(STORE_PIECE))


def flush(path: Path) -> float:
    """The seconds that fsync of a contestant's file takes."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        start = time.monotonic()
        os.fsync(descriptor)
        return time.monotonic() - start
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A new directory that is gone afterwards; never follows into what is mounted below it."""
    directory = Path(tempfile.mkdtemp(prefix="lvolfs-bench-", dir=parent)).resolve()
    try:
        yield directory
    finally:
        execute("rm", "-rf", "--one-file-system", directory)


@contextlib.contextmanager
def mounted_store(store: Path, mountpoint: Path, *options: str) -> Iterator[int]:
    """A store mounted by lvolfs; gives the daemon's process id."""
    mountpoint.mkdir(exist_ok=True)
    words = ["-o", ",".join(options)] if options else []
    with daemon(
        LVOLFS,
        "mount",
        "--foreground",
        *words,
        store,
        mountpoint,
        ready=lambda: mounted(mountpoint) and (mountpoint / ".lvolfs").exists(),
        end=lambda: unmount(mountpoint),
    ) as process:
        yield process.pid


@contextlib.contextmanager
def lvolfs_volume(content: Path, directory: Path, *options: str) -> Iterator[Path]:
    """A fully written volume of a mounted store."""
    size = content.stat().st_size
    store, mountpoint = directory / "lvolfs.store", directory / "lvolfs"
    lvolfs("create", store, "--size", str(size + size // 8 + 64 * MIB))
    with mounted_store(store, mountpoint, *options):
        volume = mountpoint / "volumes/bench"
        with volume.open("wb") as file:
            file.truncate(size)
        copy_content(content, volume)
        with kept_warm(store):
            yield volume
    store.unlink()


@contextlib.contextmanager
def lvolfs_uring(content: Path, directory: Path) -> Iterator[Path]:
    """The same, with FUSE over io_uring, which the administrator has to allow."""
    before = ALLOW_URING.read_text()
    ALLOW_URING.write_text("Y")
    try:
        with lvolfs_volume(content, directory, "transport=uring") as path:
            yield path
    finally:
        ALLOW_URING.write_text(before)


@contextlib.contextmanager
def raw_file(content: Path, directory: Path) -> Iterator[Path]:
    path = directory / "raw"
    write_image(content, path)
    with kept_warm(path):
        yield path
    path.unlink()


@contextlib.contextmanager
def python_peer(name: str, content: Path, directory: Path) -> Iterator[Path]:
    """One of the small file systems in this package, over a flat file."""
    mountpoint = directory / name
    path = mountpoint / "flat"
    mountpoint.mkdir()
    program = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", f"bench.peers.{name}")
    with (
        raw_file(content, directory) as flat,
        daemon(
            *program,
            flat,
            mountpoint,
            ready=lambda: mounted(mountpoint) and path.exists(),
            end=lambda: unmount(mountpoint),
        ),
    ):
        yield path
    mountpoint.rmdir()


@contextlib.contextmanager
def bare_fuse(content: Path, directory: Path) -> Iterator[Path]:
    """No file at all: as many threads as lvolfs has answer requests, and do nothing."""
    program, mountpoint = directory / "bare_fuse", directory / "bare"
    flags = execute("pkg-config", "--cflags", "--libs", "fuse3").split()
    execute("gcc", "-O2", "-pthread", "-o", program, BARE_SOURCE, *flags)
    mountpoint.mkdir()
    path = mountpoint / "flat"
    threads = max(4, 2 * (os.cpu_count() or 1))
    with daemon(
        program,
        str(content.stat().st_size),
        str(threads),
        mountpoint,
        ready=lambda: mounted(mountpoint) and path.exists(),
        end=lambda: unmount(mountpoint),
    ):
        yield path
    mountpoint.rmdir()


@contextlib.contextmanager
def qcow2_export(image: Path, *, aio: str = "threads") -> Iterator[Path]:
    """A qcow2 image as a file, by qemu-storage-daemon's FUSE export.

    The image is in the host's page cache (the default cache mode of the file driver), all of
    its tables in the daemon's.
    """
    mountpoint = image.with_suffix(".export")
    mountpoint.touch()
    with daemon(
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=file,node-name=file,filename={image},aio={aio},discard=unmap",
        "--blockdev",
        "driver=qcow2,node-name=image,file=file,discard=unmap,l2-cache-size=67108864,"
        "refcount-cache-size=16777216,lazy-refcounts=on",
        "--export",
        f"type=fuse,id=export,node-name=image,mountpoint={mountpoint},writable=on",
        ready=lambda: mounted(mountpoint),
    ):
        yield mountpoint
    mountpoint.unlink()


@contextlib.contextmanager
def qcow2_file(content: Path, directory: Path) -> Iterator[Path]:
    """A fully allocated qcow2 image with lvolfs's cluster size."""
    converted, image = directory / "converted.qcow2", directory / "image.qcow2"
    options = "cluster_size=1M,lazy_refcounts=on"
    execute("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, content, converted)
    write_image(converted, image)
    converted.unlink()
    with kept_warm(image), qcow2_export(image) as path:
        yield path
    image.unlink()


@contextlib.contextmanager
def nbdfuse_file(content: Path, directory: Path) -> Iterator[Path]:
    """nbdkit's file plugin behind nbdfuse with its 4 connections."""
    socket, mountpoint = directory / "nbdkit.sock", directory / "nbdfuse"
    mountpoint.mkdir()
    path = mountpoint / "flat"
    with (
        raw_file(content, directory) as flat,
        daemon("nbdkit", "-f", "-U", socket, "file", flat, ready=socket.exists),
        daemon(
            "nbdfuse",
            path,
            f"nbd+unix:///?socket={socket}",
            ready=lambda: mounted(mountpoint) and path.exists(),
            end=lambda: unmount(mountpoint),
        ),
    ):
        yield path
    mountpoint.rmdir()
    socket.unlink(missing_ok=True)


@contextlib.contextmanager
def loop_file_system(image: Path, size: int, *mkfs: str) -> Iterator[Path]:
    """A file system on a loop device over a new sparse file in the page cache."""
    with image.open("xb") as file:
        file.truncate(size)
    mountpoint = image.with_suffix(".mnt")
    mountpoint.mkdir()
    execute(*mkfs, image)
    execute("mount", "-o", "loop", image, mountpoint)
    try:
        yield mountpoint
    finally:
        unmount(mountpoint)
    mountpoint.rmdir()
    image.unlink()


@contextlib.contextmanager
def huge_tmpfs(directory: Path) -> Iterator[None]:
    """A tmpfs whose files are made of huge pages, mounted over an empty directory."""
    execute("mount", "-t", "tmpfs", "-o", "huge=within_size", "lvolfs-bench", directory)
    try:
        yield
    finally:
        unmount(directory)


@contextlib.contextmanager
def xfs_file(content: Path, directory: Path) -> Iterator[Path]:
    """A reflink of another file, as a clone is one, on XFS on a loop device."""
    size = max(5 * content.stat().st_size // 2, 768 * MIB)
    image = directory / "xfs.img"
    with loop_file_system(image, size, "mkfs.xfs", "-q", "-m", "reflink=1") as mountpoint:
        path = mountpoint / "flat"
        execute("cp", content, mountpoint / "base")
        execute("cp", "--reflink=always", mountpoint / "base", path)
        execute("sync", path)
        with kept_warm(image):
            yield path


FILES: dict[str, Callable[[Path, Path], contextlib.AbstractContextManager[Path]]] = {
    "lvolfs": lvolfs_volume,
    "lvolfs-uring": lvolfs_uring,
    "bare": bare_fuse,
    "flat-lane": partial(python_peer, "flat_lane"),
    "raw": raw_file,
    "disk": raw_file,
    "qcow2": qcow2_file,
    "nbdfuse": nbdfuse_file,
    "pyfuse3": partial(python_peer, "flat_pyfuse3"),
    "xfs": xfs_file,
}


class BlockFiles:
    """The contestants' files, made and started when they are first asked for."""

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self.size = size
        self.stack = contextlib.ExitStack()
        self.files: dict[str, Path] = {}
        self.failed: dict[str, Exception] = {}

    def __enter__(self) -> "BlockFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def content(self) -> Path:
        """A plain file with what every contestant's file starts with."""
        path = self.directory / "content"
        if not path.exists():
            Content().fill(path, self.size)
        return path

    def __getitem__(self, name: str) -> Path:
        if name in self.failed:
            raise self.failed[name]
        if name not in self.files:
            home = self.directory / f"{name}.files"
            home.mkdir()
            try:
                self.files[name] = self.stack.enter_context(FILES[name](self.content, home))
            except (OSError, ProgramError) as error:
                self.failed[name] = error
                raise
        return self.files[name]
