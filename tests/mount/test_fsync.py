"""fsync(2) and fdatasync(2): what was written before survives a crash of the daemon."""

import os

from tests.mount.conftest import MIB, Mounted, pattern, run


def test_after_fsync_a_crash_loses_nothing(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    with file.open("wb", buffering=0) as raw:
        raw.write(pattern(10 * MIB))
        os.fsync(raw.fileno())
    mounted.kill()
    mounted.start()
    assert file.read_bytes() == pattern(10 * MIB)


def test_fdatasync_of_a_rewritten_clone(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(4 * MIB))
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    with file.open("r+b", buffering=0) as raw:
        os.pwrite(raw.fileno(), b"new", 2 * MIB + 5)
        os.fdatasync(raw.fileno())
    mounted.kill()
    mounted.start()
    expected = bytearray(pattern(4 * MIB))
    expected[2 * MIB + 5 : 2 * MIB + 8] = b"new"
    assert file.read_bytes() == expected
    assert (mounted.snapshots / "s").read_bytes() == pattern(4 * MIB)


def test_dd_conv_fsync_and_syncing_a_directory(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    run("dd", "if=/dev/urandom", f"of={file}", "bs=1M", "count=5", "conv=fsync", "status=none")
    content = file.read_bytes()
    run("sync", mounted.volumes)
    run("sync", "-f", file)
    mounted.kill()
    mounted.start()
    assert file.read_bytes() == content


def test_concurrent_fsyncs(mounted: Mounted) -> None:
    import threading

    problems: list[Exception] = []

    def write_and_sync(number: int) -> None:
        try:
            with (mounted.volumes / f"v{number}").open("wb", buffering=0) as raw:
                for _ in range(20):
                    raw.write(pattern(4096, number))
                    os.fsync(raw.fileno())
        except OSError as error:
            problems.append(error)

    threads = [threading.Thread(target=write_and_sync, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    mounted.kill()
    mounted.start()
    for number in range(6):
        content = (mounted.volumes / f"v{number}").read_bytes()
        assert content[: 20 * 4096] == pattern(4096, number) * 20
