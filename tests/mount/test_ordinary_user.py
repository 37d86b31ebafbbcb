"""A mount by somebody who is not root: through fusermount3, private, with small sockets."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvolfs import ioctls
from lvolfs.lvstore.store import Lvstore
from tests.mount.conftest import MIB, Mounted, fails, pattern, run
from tests.other_users import NOBODY, within_reach

pytestmark = pytest.mark.needs_root


class MountedByNobody(Mounted):
    uid = NOBODY


@pytest.fixture
def fuse_for_all() -> Iterator[None]:
    """/dev/fuse as udev makes it elsewhere (0666), for as long as the test lasts."""
    before = Path("/dev/fuse").stat().st_mode & 0o777
    Path("/dev/fuse").chmod(0o666)
    yield
    Path("/dev/fuse").chmod(before)


@pytest.fixture
def theirs(fuse_for_all: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    directory = tmp_path_factory.mktemp("nobody")
    mounted = MountedByNobody(directory, size=128 * MIB, cluster_size=MIB, options="")
    for path in (directory, mounted.store_path, mounted.path):
        os.chown(path, NOBODY, NOBODY)
    with within_reach(mounted.path):
        try:
            mounted.start()
            yield mounted
            mounted.clean_up()
            mounted.check_log()
        finally:
            mounted.clean_up()


def as_nobody(script: str, directory: Path, check: bool = True) -> str:
    return run(
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
        "bash", "-euc", script, check=check, cwd=directory,
    )  # fmt: skip


def test_everything_works_for_them(theirs: Mounted) -> None:
    as_nobody(
        """
        dd if=/dev/urandom of=mnt/volumes/a bs=1M count=20 conv=fsync status=none
        cp mnt/volumes/a mnt/volumes/b
        cmp mnt/volumes/a mnt/volumes/b
        dd if=mnt/volumes/a of=/dev/null bs=4M status=none
        setfattr -n user.lvolfs.snapshot -v s mnt/volumes/a
        setfattr -n user.lvolfs.clone -v c mnt/snapshots/s
        setfattr -n user.lvolfs.checksum.register -v '' mnt/snapshots/s
        truncate -s 30M mnt/volumes/b
        mv mnt/volumes/b mnt/volumes/d
        rm mnt/volumes/d
        test "$(stat -c %U:%a mnt/snapshots/s)" = nobody:400
        test "$(stat -c %U:%a mnt/volumes/c)" = nobody:600
        test ! -w mnt/snapshots/s
        cat mnt/.lvolfs/lvols.json mnt/.lvolfs/metrics > /dev/null
        """,
        theirs.directory,
    )
    as_nobody("fusermount3 -u mnt", theirs.directory)
    assert theirs.wait() == 0
    theirs.check_store_is_clean()
    with Lvstore.open(str(theirs.store_path), read_only=True) as store:
        assert [lvol.name for lvol in store.lvols] == ["a", "c", "s"]


def test_a_listing_longer_than_their_socket_buffer(theirs: Mounted) -> None:
    as_nobody("for i in $(seq 100); do : > mnt/volumes/volume-$i; done", theirs.directory)
    text = as_nobody(
        """/usr/bin/python3 - <<'EOF'
import ctypes, os
libc = ctypes.CDLL(None)
fd = os.open("mnt/volumes", os.O_RDONLY)
buffer = ctypes.create_string_buffer(1 << 20)
total = 0
while (got := libc.syscall(217, fd, buffer, 1 << 20)) > 0:
    total += got
print(got, total > 100 * 24)
EOF""",
        theirs.directory,
        check=False,
    )
    assert text.strip() == "0 True"


def test_it_is_private(theirs: Mounted) -> None:
    """Not even root gets in without allow_other."""
    with fails(errno.EACCES):
        list(theirs.path.iterdir())


def test_killed_by_a_crash_and_replaced(theirs: Mounted) -> None:
    as_nobody(
        "dd if=/dev/zero of=mnt/volumes/a bs=1M count=2 conv=fsync status=none", theirs.directory
    )
    theirs.kill()
    theirs.start()
    as_nobody("test $(stat -c %s mnt/volumes/a) = 2097152", theirs.directory)


def test_allow_other_shows_names_but_no_data(shared: Mounted) -> None:
    assert as_nobody(f"stat -c %s {shared.volumes}/v", Path("/")).strip() == str(MIB)
    assert as_nobody(f"ls {shared.snapshots}", Path("/")).split() == ["s"]
    for attempt in (
        f"cat {shared.volumes}/v",
        f"cat {shared.status}/store.json",
        f"setfattr -n user.x -v y {shared.volumes}/v",
        f"setfattr -n user.lvolfs.clone -v c {shared.snapshots}/s",
        f"touch {shared.volumes}/w",
    ):
        assert "Permission denied" in as_nobody(attempt, Path("/"), check=False), attempt
    assert "Permission denied" in as_nobody(f"rm -f {shared.volumes}/v", Path("/"), check=False)
    assert (shared.volumes / "v").read_bytes() == pattern(MIB)


def test_what_changes_a_store_is_for_its_owner(shared: Mounted) -> None:
    """Somebody who was handed an open file may ask, but not act."""
    with (shared.snapshots / "s").open("rb") as raw:
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            status = 1
            try:
                ioctls.call(raw, ioctls.Info())
                ioctls.call(raw, ioctls.Fragmap(count=1))
                for action in (
                    ioctls.Clone(name=b"c"),
                    ioctls.ChecksumRegister(),
                    ioctls.CopyStart(flags=ioctls.COPY_ALL, destination=b"v"),
                    ioctls.CopyCancel(id=1),
                ):
                    with fails(errno.EPERM):
                        ioctls.call(raw, action)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.getxattr(shared.snapshots / "s", "user.lvolfs.children") == b"v"


def _refusal(prepare: str) -> str:
    """What nobody hears from prepare_mountpoint."""
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os\n"
            "from lvolfs.mount.session import prepare_mountpoint\n"
            f"os.setuid({NOBODY})\n"
            f"try:\n    {prepare}\n"
            "except OSError as error:\n    print(error.strerror)\n",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return child.stdout


def test_without_access_to_dev_fuse_it_says_so() -> None:
    before = Path("/dev/fuse").stat().st_mode & 0o777
    Path("/dev/fuse").chmod(0o600)
    try:
        assert "may not open /dev/fuse" in _refusal("prepare_mountpoint('/')")
    finally:
        Path("/dev/fuse").chmod(before)


def test_what_fusermount3_would_refuse(fuse_for_all: None) -> None:
    assert "may not write to mount point '/usr'" in _refusal("prepare_mountpoint('/usr')")
    if "\nuser_allow_other" not in Path("/etc/fuse.conf").read_text():
        text = _refusal("prepare_mountpoint('/tmp', allow_other=True)")
        assert "unless /etc/fuse.conf says user_allow_other" in text
