"""The native checksums against published vectors and independent implementations."""

import struct
from array import array

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from lvolfs._native import checksum
from tests.delta.crc64_iso import crc64 as plain_crc64


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xB90956C775A41001),
        (bytes(4096), 0x492FC33C906FFF90),
        (b"\xff" * 4096, 0xACFF906F00FFFF00),
        (bytes(range(256)) * 16, 0x4A457F94B0660307),
    ],
)
def test_crc64_gives_the_published_values(data, expected):
    assert checksum.crc64(data) == expected
    assert plain_crc64(data) == expected


def test_crc64_gives_what_spdk_tests_expect_of_snapshots():
    size = 4 << 20
    first, second = checksum.crc64(b"\xcc" * size), checksum.crc64(b"\xbb" * size)
    assert first == 828947163827886523
    assert second == 7161606974051404010
    assert checksum.crc64_combine(array("Q", [first, second]), size) == 440587436939872369


@given(st.binary(max_size=5000), st.binary(max_size=5000))
def test_crc64_chains(one, other):
    assert checksum.crc64(one) == plain_crc64(one)
    assert checksum.crc64(other, checksum.crc64(one)) == plain_crc64(one + other)


@given(st.binary(max_size=5000))
def test_xxh3_is_that_of_the_xxhash_package(data):
    assert checksum.xxh3(data) == xxhash.xxh3_64_intdigest(data)


@given(st.integers(1, 300), st.lists(st.integers(0, 255), max_size=9))
def test_combined_crc_is_the_crc_of_the_pieces_joined(length, fills):
    pieces = [bytes([fill]) * length for fill in fills]
    combined = checksum.crc64_combine(array("Q", map(checksum.crc64, pieces)), length)
    assert combined == plain_crc64(b"".join(pieces))


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1500])
def test_xxh3_of_a_snapshot_is_over_index_and_checksum_pairs(count):
    clusters = array("I", range(7, 7 + 3 * count, 3))
    values = array("Q", ((c * 0x9E3779B97F4A7C15) & (2**64 - 1) for c in clusters))
    pairs = b"".join(struct.pack("<QQ", c, v) for c, v in zip(clusters, values, strict=True))
    expected = xxhash.xxh3_64_intdigest(pairs)
    assert checksum.xxh3_combine(clusters, values) == expected
    assert checksum.snapshot_checksum("xxh3", clusters, values, 4096) == expected


@pytest.mark.parametrize("size", [4096, 65536, 1 << 20, 3 << 20])
def test_zero_cluster(size):
    assert checksum.zero_cluster("xxh3", size) == xxhash.xxh3_64_intdigest(bytes(size))
    assert checksum.zero_cluster("crc64", size) == checksum.crc64(bytes(size))


def test_unknown_algorithm_is_named():
    with pytest.raises(OSError, match="unknown checksum algorithm 'md5'"):
        checksum.zero_cluster("md5", 4096)
