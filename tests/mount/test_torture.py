"""Other people's stress programs: fio and stress-ng, for as long as LVOLFS_TORTURE_SECONDS says."""

import os
from collections.abc import Callable

import pytest

from lvolfs.blobstore.check import check_store
from tests.mount.conftest import MIB, Mounted, run
from tests.mount.kernel_file_systems import KINDS, loop_mount

SECONDS = float(os.environ.get("LVOLFS_TORTURE_SECONDS", "5"))
"""Of each of them."""

pytestmark = pytest.mark.timeout(300 + 2 * SECONDS)


@pytest.mark.parametrize("options", ["", "page_cache"])
def test_fio_verifies(make_mounted: Callable[..., Mounted], options: str) -> None:
    """Random writes of random sizes, each read back and compared, in rounds."""
    mounted = make_mounted(size=512 * MIB, cluster_size=256 * 1024, options=options)
    volume = mounted.volumes / "v"
    volume.touch()
    os.truncate(volume, 256 * MIB)
    run(
        *("fio", "--name=verify", f"--filename={volume}", "--rw=randwrite", "--direct=1"),
        *("--bsrange=512-256k", "--blockalign=512", "--ioengine=libaio", "--iodepth=16"),
        *("--size=256m", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=512"),
        *("--randrepeat=0", "--fsync=256", "--time_based", f"--runtime={SECONDS:.0f}"),
        timeout=200 + SECONDS,
        cwd=mounted.directory,
    )
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []


@pytest.mark.needs_loop_devices
@pytest.mark.parametrize(("kind", "size", "make", "check"), KINDS, ids=["ext4", "xfs"])
def test_stress_ng(
    make_mounted: Callable[..., Mounted], kind: str, size: int, make: list[str], check: list[str]
) -> None:
    mounted = make_mounted(size=1024 * MIB, cluster_size=256 * 1024)
    volume = mounted.volumes / "v"
    volume.touch()
    os.truncate(volume, (size + 448) * MIB)
    run(*make, volume)
    inside = mounted.directory / "inside"
    with loop_mount(volume, inside, kind, direct=True):
        run(
            *("stress-ng", "--temp-path", inside, "--verify", "--metrics-brief"),
            *("--timeout", f"{SECONDS:.0f}s", "--hdd", "1", "--hdd-bytes", "64m"),
            *("--fallocate", "1", "--fallocate-bytes", "32m", "--copy-file", "1"),
            *("--copy-file-bytes", "128m", "--dentry", "1", "--rename", "1", "--sync-file", "1"),
            *("--seek", "1", "--seek-size", "16m", "--aio", "1", "--mmap", "1", "--mmap-file"),
            *("--mmap-bytes", "16m"),
            timeout=200 + SECONDS,
        )
    run(*check, volume, timeout=200)
    mounted.unmount()
    assert check_store(str(mounted.store_path)) == []
