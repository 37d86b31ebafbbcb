"""The native copy, comparison and checksum loops between plain files and blobs."""

import errno
import os
from array import array

import pytest

from lvolfs._native.checksum import ChecksumLoop, crc64, xxh3
from lvolfs._native.compare import CompareLoop
from lvolfs._native.control import Control
from lvolfs._native.copy import COPY, UNMAP, CopyLoop
from lvolfs._native.endpoint import Endpoint
from tests.native.conftest import CLUSTER, thin_blob

COUNT = 8


def content(c):
    return bytes([c + 1]) * CLUSTER


@pytest.fixture
def files(tmp_path):
    """A source with content in every cluster and a destination full of 0xEE."""
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(b"".join(content(c) for c in range(COUNT)))
    destination.write_bytes(b"\xee" * COUNT * CLUSTER)
    return source, destination


def endpoint(path, flags=os.O_RDWR, size=COUNT * CLUSTER):
    descriptor = os.open(path, flags)
    try:
        return Endpoint.of_file(descriptor, size, path.name)
    finally:
        os.close(descriptor)


def copy_loop(source, destination, actions, control=None, size=CLUSTER):
    clusters = array("I", (c for c, _ in actions))
    kinds = bytes(kind for _, kind in actions)
    return CopyLoop(source, destination, clusters, kinds, size, control or Control())


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
@pytest.mark.parametrize("size", [CLUSTER, 2 * CLUSTER, 8 << 20])
def test_checksums_are_taken_on_the_way(tmp_path, algorithm, size):
    """Of clusters that go in one piece, and of such that go in several."""
    data = os.urandom(size)
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(bytes(size) + data)
    destination.write_bytes(bytes(2 * size))
    ends = [endpoint(each, size=2 * size) for each in (source, destination)]
    loop = CopyLoop(
        *ends, array("I", [1, 0]), bytes([COPY, COPY]), size, Control(), algorithm=algorithm
    )
    loop.run()
    take = {"xxh3": xxh3, "crc64": crc64}[algorithm]
    assert array("Q", loop.values_bytes()).tolist() == [take(data), take(bytes(size))]
    assert destination.read_bytes() == source.read_bytes()


def test_file_to_file(files):
    control = Control()
    loop = copy_loop(
        endpoint(files[0], os.O_RDONLY),
        endpoint(files[1]),
        [(5, COPY), (0, COPY), (2, UNMAP)],
        control,
    )
    loop.run()
    loop.flush()
    assert (control.copied, control.unmapped) == (2, 1)
    assert (control.bytes_read, control.bytes_written) == (2 * CLUSTER, 2 * CLUSTER)
    data = files[1].read_bytes()
    expected = {5: content(5), 0: content(0), 2: bytes(CLUSTER)}
    for c in range(COUNT):
        part = data[c * CLUSTER : (c + 1) * CLUSTER]
        assert part == expected.get(c, b"\xee" * CLUSTER)
    assert files[1].stat().st_blocks * 512 <= 7 * CLUSTER


def test_blob_to_file_to_blob(engine, make_engine, files, tmp_path):
    blob = thin_blob(engine, COUNT)
    for c in (1, 6):
        blob.pwrite(content(c), c * CLUSTER)
    own = Endpoint.of_blob(blob, "lvol 'a'", own_layer=True)
    copy_loop(own, endpoint(files[1]), [(1, COPY), (6, COPY)]).run()
    assert files[1].read_bytes()[CLUSTER : 2 * CLUSTER] == content(1)
    other = thin_blob(make_engine(path=tmp_path / "other.img"), COUNT)
    back = copy_loop(endpoint(files[1]), Endpoint.of_blob(other, "b"), [(6, COPY), (1, COPY)])
    back.run()
    back.flush()
    assert other.fragmap() == blob.fragmap()
    assert other.pread(COUNT * CLUSTER, 0) == blob.pread(COUNT * CLUSTER, 0)
    with pytest.raises(OSError, match="reading cluster 3 of lvol 'a'") as caught:
        copy_loop(own, endpoint(files[1]), [(3, COPY)]).run()
    assert caught.value.errno == errno.ENODATA


def test_a_source_that_shrank(files):
    os.truncate(files[0], 3 * CLUSTER)
    control = Control()
    loop = copy_loop(
        endpoint(files[0]), endpoint(files[1]), [(c, COPY) for c in range(COUNT)], control
    )
    with pytest.raises(OSError, match="reading cluster 3 of source: Input/output error"):
        loop.run()
    assert (loop.failed_side, loop.failed_cluster, control.copied) == ("source", 3, 3)


def test_a_destination_that_cannot_be_written(files):
    loop = copy_loop(endpoint(files[0]), endpoint(files[1], os.O_RDONLY), [(4, COPY)])
    with pytest.raises(OSError, match="writing cluster 4 of destination"):
        loop.run()
    assert loop.failed_side == "destination"
    loop = copy_loop(endpoint(files[0]), endpoint(files[1], os.O_RDONLY), [(4, UNMAP)])
    with pytest.raises(OSError, match="writing cluster 4 of destination"):
        loop.run()


def test_cancelled_before_it_began(files):
    control = Control()
    control.cancel()
    loop = copy_loop(endpoint(files[0]), endpoint(files[1]), [(0, COPY)], control)
    with pytest.raises(OSError, match="cancel") as caught:
        loop.run()
    assert caught.value.errno == errno.ECANCELED
    assert control.copied == 0


def test_clusters_larger_than_a_slice(tmp_path):
    size = 9 << 20
    source, destination = tmp_path / "source", tmp_path / "destination"
    data = os.urandom(2 * size)
    source.write_bytes(data)
    destination.write_bytes(bytes(2 * size))
    ends = endpoint(source, size=2 * size), endpoint(destination, size=2 * size)
    copy_loop(*ends, [(1, COPY)], size=size).run()
    assert destination.read_bytes() == bytes(size) + data[size:]
    compared = CompareLoop(*ends, array("I", [0, 1]), size, Control())
    compared.run()
    assert compared.differs_bytes() == b"\1\0"


def test_compare_past_the_end_is_with_zeros(files):
    files[1].write_bytes(bytes(COUNT * CLUSTER))
    short = endpoint(files[0], size=2 * CLUSTER)
    loop = CompareLoop(short, endpoint(files[1]), array("I", range(COUNT)), CLUSTER, Control())
    loop.run()
    assert loop.differs_bytes() == b"\1\1" + bytes(COUNT - 2)


def test_checksums_of_a_file(files):
    loop = ChecksumLoop(endpoint(files[0]), "xxh3", array("I", [7, 0]), CLUSTER, Control())
    loop.run()
    values = array("Q", loop.values_bytes())
    assert list(values) == [xxh3(content(7)), xxh3(content(0))]
    os.truncate(files[0], CLUSTER)
    loop = ChecksumLoop(endpoint(files[0]), "xxh3", array("I", [0, 4]), CLUSTER, Control())
    with pytest.raises(OSError, match="reading cluster 4 of source"):
        loop.run()
    assert loop.failed_cluster == 4


def test_a_closed_endpoint_is_refused(files):
    closed = endpoint(files[0])
    closed.close()
    closed.close()
    with pytest.raises(ValueError, match="source is closed"):
        closed.pread(1, 0)
    with pytest.raises(ValueError, match="source is closed"):
        copy_loop(closed, endpoint(files[1]), [(0, COPY)])
    source = endpoint(files[0])
    loop = copy_loop(source, endpoint(files[1]), [(0, COPY)])
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.run()


def test_actions_are_checked(files):
    ends = endpoint(files[0]), endpoint(files[1])
    with pytest.raises(OSError, match="cluster 3 is neither"):
        copy_loop(*ends, [(3, 9)])
    with pytest.raises(ValueError, match="one action"):
        CopyLoop(*ends, array("I", [1]), b"", CLUSTER, Control())


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match="bytes per second"):
        Control(rate=-1)
