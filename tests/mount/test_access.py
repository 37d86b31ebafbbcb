"""No path that a client gives is opened with more rights than the client's own."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvolfs import ioctls
from tests.mount.conftest import MIB, Mounted, fails, pattern
from tests.other_users import NOBODY

pytestmark = pytest.mark.needs_root

SECRET = b"secret" * 1000


@pytest.fixture
def secret(mounted: Mounted) -> Path:
    """A file that would make a fine destination; `s` is a snapshot that fits in."""
    (mounted.volumes / "v").write_bytes(pattern(MIB))
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    path = mounted.directory / "secret"
    path.write_bytes(SECRET)
    os.truncate(path, MIB)
    path.chmod(0o600)
    return path


COPY_BY_XATTR = (
    "import os,sys; os.setxattr(sys.argv[1], 'user.lvolfs.copy.start', sys.argv[2].encode())"
)
COPY_BY_IOCTL = (
    "import sys; from lvolfs import ioctls; raw = open(sys.argv[1], 'rb'); "
    "ioctls.call(raw, ioctls.CopyStart(flags=ioctls.COPY_ALL, destination=sys.argv[2].encode()))"
)


def confined(how: list[str], script: str, mounted: Mounted, destination: str) -> str:
    done = subprocess.run(
        [*how, sys.executable, "-c", script, str(mounted.snapshots / "s"), destination],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return "done" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("script", [COPY_BY_XATTR, COPY_BY_IOCTL], ids=["xattr", "ioctl"])
@pytest.mark.parametrize(
    "how",
    [
        ["unshare", "--mount"],
        ["unshare", "--net"],
        ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"],
    ],
    ids=["other mounts", "other network", "fewer capabilities"],
)
def test_confined_root_copies_to_lvols_only(
    mounted: Mounted, secret: Path, how: list[str], script: str
) -> None:
    """Root of a container, say, that was given the mount but not the host's files."""
    before = secret.read_bytes()
    for destination in (str(secret), "nbd://127.0.0.1:1/", f"nbd+unix:///?socket={secret}"):
        assert "PermissionError" in confined(how, script, mounted, destination)
    assert secret.read_bytes() == before
    # An lvol is no way out.
    (mounted.volumes / "w").touch()
    os.truncate(mounted.volumes / "w", MIB)
    assert confined(how, script, mounted, "w") == "done"
    while os.getxattr(mounted.snapshots / "s", "user.lvolfs.copy.state") == b"in progress":
        time.sleep(0.02)
    # And whoever is not confined may name files.
    assert confined([], script, mounted, str(secret)) == "done"


def test_a_process_in_a_chroot_names_no_path(mounted: Mounted, secret: Path) -> None:
    with (mounted.snapshots / "s").open("rb") as raw:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.chroot(mounted.directory)
                with fails(errno.EPERM):
                    ioctls.call(
                        raw, ioctls.CopyStart(flags=ioctls.COPY_ALL, destination=b"/secret")
                    )
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert secret.read_bytes()[: len(SECRET)] == SECRET
    assert "another root directory" in mounted.log_text()


def test_strangers_start_nothing(shared: Mounted) -> None:
    """Not even with an open file that somebody handed to them."""
    victim = shared.directory / "victim"
    victim.write_bytes(bytes(MIB))
    with (shared.snapshots / "s").open("rb") as raw:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                for place in (str(victim), f"/proc/{os.getppid()}/fd/0", "v", "nbd://localhost"):
                    with pytest.raises(PermissionError):
                        os.setxattr(raw.fileno(), "user.lvolfs.copy.start", place.encode())
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert victim.read_bytes() == bytes(MIB)


def test_what_is_not_a_disk_is_no_destination(mounted: Mounted, secret: Path) -> None:
    """FIFOs would wait for ever, devices of other kinds act on a write, and so may /proc."""
    fifo = mounted.directory / "fifo"
    os.mkfifo(fifo)
    (mounted.directory / "link").symlink_to(fifo)
    for place in (
        fifo,
        mounted.directory / "link",
        "/dev/null",
        "/proc/self/mem",
        "/dev/fuse",
        "/",
    ):
        with fails(errno.EINVAL):
            os.setxattr(mounted.snapshots / "s", "user.lvolfs.copy.start", str(place).encode())
    loop = mounted.directory / "loop"
    loop.symlink_to(loop)
    with fails(errno.ELOOP):
        os.setxattr(mounted.snapshots / "s", "user.lvolfs.copy.start", str(loop).encode())
