"""A store that is full: the writer hears of it, and nothing else is harmed."""

import errno
import os
from collections.abc import Callable

from tests.mount.conftest import MIB, Mounted, fails, pattern


def test_enospc_reaches_the_writer_and_space_can_be_freed(
    make_mounted: Callable[..., Mounted],
) -> None:
    mounted = make_mounted(size=40 * MIB)
    first = mounted.volumes / "first"
    first.write_bytes(pattern(10 * MIB))
    second = mounted.volumes / "second"
    second.touch()
    os.truncate(second, 100 * MIB)  # thin: more than there is
    written = 0
    with second.open("r+b", buffering=0) as raw:
        with fails(errno.ENOSPC):
            while True:
                written += os.pwrite(raw.fileno(), pattern(MIB, 2), written)
        assert written >= 20 * MIB
        # What has its cluster already can be written still.
        assert os.pwrite(raw.fileno(), b"again", 0) == 5
        os.fsync(raw.fileno())
    assert first.read_bytes() == pattern(10 * MIB)
    content = second.read_bytes()
    assert content[5:MIB] == pattern(MIB, 2)[5:]
    assert content[MIB:written] == pattern(MIB, 2) * (written // MIB - 1)
    assert content[written:] == bytes(len(content) - written)
    first.unlink()
    with second.open("r+b", buffering=0) as raw:
        assert os.pwrite(raw.fileno(), pattern(MIB, 3), written) == MIB
        os.fsync(raw.fileno())
    mounted.kill()
    mounted.start()
    assert second.read_bytes()[written : written + MIB] == pattern(MIB, 3)


def test_enospc_when_a_mapping_needs_a_cluster(make_mounted: Callable[..., Mounted]) -> None:
    import mmap

    mounted = make_mounted(size=24 * MIB)
    file = mounted.volumes / "v"
    file.touch()
    os.truncate(file, 60 * MIB)
    with file.open("r+b") as raw:
        mapping = mmap.mmap(raw.fileno(), 60 * MIB)
        for offset in range(0, 60 * MIB, MIB):
            mapping[offset] = 1
        with fails(errno.ENOSPC):
            mapping.flush()
            os.fsync(raw.fileno())
        mapping.close()
