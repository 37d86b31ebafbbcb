"""NBD exports as destinations, served by nbdkit."""

import contextlib
import errno
import itertools
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lvolfs.bdev.nbd import is_nbd_uri, open_nbd
from lvolfs.delta.copy import shallow_copy
from lvolfs.lvstore.store import Lvstore
from tests.delta.conftest import CLUSTER, bits, fill, finish
from tests.nbd_server import nbd_server

SIZE = 8 * CLUSTER


@pytest.fixture
def serve(tmp_path):
    numbers = itertools.count()
    with contextlib.ExitStack() as running:
        yield (
            lambda *arguments: (
                running.enter_context(
                    nbd_server(tmp_path / f"nbd{next(numbers)}.sock", *arguments)
                ).uri
            )
        )


@pytest.fixture
def snapshot(tmp_path):
    path = str(tmp_path / "store.img")
    with Lvstore.create(path, size=60 * CLUSTER, cluster_size=CLUSTER, name="lvs0") as store:
        volume = store.create_volume("v", SIZE)
        fill(volume, [0, 3, 7])
        yield volume.snapshot("s")


def exported(tmp_path, fill_byte=b"\xee"):
    path = tmp_path / "disk"
    path.write_bytes(fill_byte * SIZE)
    return path


@pytest.mark.parametrize(
    "filters", [[], ["--filter=nozero"], ["--filter=blocksize-policy", "blocksize-maximum=16K"]]
)
def test_range_copy_to_an_export(snapshot, serve, tmp_path, filters):
    path = exported(tmp_path)
    arguments = [each for each in filters if each.startswith("--")]
    settings = [each for each in filters if not each.startswith("--")]
    uri = serve(*arguments, "file", str(path), *settings)
    job = shallow_copy(snapshot, uri, [3, 7, 1])
    finish(job)
    assert (job.copied, job.unmapped, job.total) == (2, 1, 3)
    data = path.read_bytes()
    for c in range(8):
        part = data[c * CLUSTER : (c + 1) * CLUSTER]
        if c in (3, 7):
            assert part == snapshot.pread(CLUSTER, c * CLUSTER)
        else:
            assert part == (bytes(CLUSTER) if c == 1 else b"\xee" * CLUSTER)


def test_deep_copy_to_an_export(snapshot, serve, tmp_path):
    uri = serve("memory", str(SIZE))
    assert bits(snapshot.fragmap()) == [0, 3, 7]
    finish(shallow_copy(snapshot, uri, deep=True))
    with open_nbd(uri) as found:
        assert found.size == SIZE
        assert found.endpoint.pread(SIZE, 0) == snapshot.pread(SIZE, 0)


def refused(code, snapshot, uri, match):
    with pytest.raises(OSError, match=match) as caught:
        shallow_copy(snapshot, uri)
    if code is not None:
        assert caught.value.errno == code


def test_refusals(snapshot, serve, tmp_path):
    refused(errno.EROFS, snapshot, serve("-r", "memory", str(SIZE)), "read-only export")
    refused(errno.EINVAL, snapshot, serve("memory", str(SIZE - 4096)), "bigger")
    refused(None, snapshot, f"nbd+unix:///?socket={tmp_path}/nothing", "cannot be reached")
    refused(errno.EINVAL, snapshot, "nbd://\0", "not a name, path or NBD URI")
    assert snapshot.busy is None


def test_an_error_of_the_server_names_the_cluster(snapshot, serve):
    uri = serve("--filter=error", "memory", str(SIZE), "error-pwrite=ENOSPC", "error-pwrite-rate=1")
    job = shallow_copy(snapshot, uri)
    assert job.wait(10)
    assert (job.state, job.errno, job.copied) == ("error", errno.ENOSPC, 0)
    # Two threads write, and both fail: either may be the first to say so.
    assert any(f"writing cluster {c} of {uri}: No space" in job.error for c in (0, 3))


def test_requests_of_several_threads_are_under_way_together(serve):
    uri = serve("--filter=delay", "memory", str(SIZE), "delay-write=40ms")

    def work(endpoint, number):
        for _ in range(16):
            endpoint.pwrite(bytes([number]) * CLUSTER, number * CLUSTER)

    with open_nbd(uri) as found, ThreadPoolExecutor(4) as pool:
        begun = time.monotonic()
        list(pool.map(lambda number: work(found.endpoint, number), range(4)))
        # One after the other they would take four times as long as those of one thread.
        assert 16 * 0.04 <= time.monotonic() - begun < 2.5 * 16 * 0.04
        assert found.endpoint.pread(4 * CLUSTER, 0)[::CLUSTER] == bytes(range(4))


def test_many_threads_each_get_their_own_answer(serve):
    """With requests that no socket takes at once, and replies that come while others are asked."""
    share = 4 << 20
    uri = serve("memory", str(4 * share))

    def work(endpoint, number):
        chance = random.Random(number)
        for _ in range(40):
            size = chance.choice([512, 65536, share])
            at = number * share + chance.randrange(0, share - size + 1, 512)
            data = chance.randbytes(size)
            endpoint.pwrite(data, at)
            assert endpoint.pread(size, at) == data

    with open_nbd(uri) as found, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: work(found.endpoint, number), range(4)))


NAME_SERVICE_HANGS = """
#include <netdb.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    sleep(600);
    return EAI_AGAIN;
}
"""
CONNECT = """
import lvolfs.bdev.nbd as nbd
nbd.CONNECT_SECONDS = 0.5
try:
    nbd.open_nbd("nbd://nobody-knows/x")
except OSError as error:
    print(error.errno, error.strerror)
"""


def test_a_name_service_that_hangs(tmp_path):
    source, library = tmp_path / "hangs.c", tmp_path / "hangs.so"
    source.write_text(NAME_SERVICE_HANGS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CONNECT],
        env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')}:{library}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert time.monotonic() - begun < 20
    number, text = done.stdout.split(" ", 1)
    assert int(number) == errno.ETIMEDOUT
    assert "NBD server nbd://nobody-knows/x cannot be reached: looking up its name" in text


def test_what_an_nbd_uri_is():
    assert is_nbd_uri("nbd://localhost:10809/x")
    assert is_nbd_uri("NBD+unix:///x?socket=/tmp/s")
    assert not is_nbd_uri("/dev/nbd0")
    assert not is_nbd_uri("nbd")
