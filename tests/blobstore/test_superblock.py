"""Every field of the superblock, at and beyond its limits."""

import errno
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spdk_reader import page_crc

from lvolfs.blobstore.crc32c import crc32c
from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.superblock import (
    grown_superblock,
    parse_superblock,
    plan_superblock,
)

MIB = 1 << 20
SIZE = 128 * MIB


def planned(**changes):
    options = {"cluster_size": MIB, "block_size": 4096}
    return plan_superblock(SIZE, **{**options, **changes})


def sealed(page):
    page = bytearray(page)
    page[4092:] = struct.pack("<I", page_crc(page))
    return bytes(page)


def changed(offset, form, *values):
    page = bytearray(planned().pack())
    struct.pack_into(form, page, offset, *values)
    return sealed(page)


def test_crc32c_check_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(4092)) == 0xA732586E


def test_round_trip():
    for options in ({}, {"block_size": 512}, {"cluster_size": 65536, "md_ratio": 50}):
        superblock = planned(**options)
        assert parse_superblock(superblock.pack(), SIZE) == superblock


def test_geometry_of_spdks_own_examples():
    superblock = planned(cluster_size=4 * MIB)
    assert (superblock.total_clusters, superblock.md_len) == (32, 32)
    assert superblock.md_start + superblock.md_len == 36
    assert superblock.metadata_clusters == 1
    superblock = plan_superblock(1000 * MIB, cluster_size=MIB)
    assert (superblock.md_len, superblock.metadata_clusters) == (1000, 4)
    assert superblock.md_start + superblock.md_len == 1004


@pytest.mark.parametrize(
    ("offset", "form", "value", "text", "code"),
    [
        (0, "<8s", b"SPDKBLOC", "no blobstore is here", errno.EILSEQ),
        (8, "<I", 0, "version 0", errno.EILSEQ),
        (8, "<I", 4, "version 4", errno.EILSEQ),
        (12, "<I", 8192, "length is 8192", errno.EILSEQ),
        (28, "<I", 0, "cluster size 0", errno.EILSEQ),
        (28, "<I", 5000, "cluster size 5000", errno.EILSEQ),
        (28, "<I", 256 * MIB, "0 clusters", errno.EILSEQ),
        (32, "<I", 0, "page mask at page 0 overlaps", errno.EILSEQ),
        (32, "<I", 2, "overlaps", errno.EILSEQ),
        (36, "<I", 0, "too small for 128 bits", errno.EILSEQ),
        (36, "<I", 0xFFFFFFFF, "overlap", errno.EILSEQ),
        (40, "<I", 0xFFFFFFFF, "overlap", errno.EILSEQ),
        (44, "<I", 0, "too small", errno.EILSEQ),
        (48, "<I", 3, "metadata at page 3 overlap a mask", errno.EILSEQ),
        (48, "<I", 0xFFFFFFFF, "do not fit", errno.EILSEQ),
        (52, "<I", 0, "no metadata pages", errno.EILSEQ),
        (52, "<I", 0xFFFFFFFF, "do not fit", errno.EILSEQ),
        (56, "<16s", b"BLOBFS", "of type BLOBFS", errno.ENXIO),
        (56, "<16s", b"", "of type none", errno.ENXIO),
        (72, "<I", 2, "overlap", errno.EILSEQ),
        (80, "<Q", SIZE + 4096, "it was truncated", errno.EILSEQ),
        (80, "<Q", 1 << 63, "it was truncated", errno.EILSEQ),
        (88, "<I", 100, "block size 100", errno.EILSEQ),
        (92, "<I", 100, "metadata page size 100", errno.EILSEQ),
        (92, "<I", 12288, "metadata page size 12288", errno.EILSEQ),
        (92, "<I", 4 * MIB, "no multiple of the metadata page size", errno.EILSEQ),
    ],
)
def test_fields(offset, form, value, text, code):
    with pytest.raises(FormatError, match=text) as info:
        parse_superblock(changed(offset, form, value), SIZE, device="d")
    assert info.value.errno == code
    assert str(info.value).startswith("superblock of 'd': ")


def test_order_of_checks():
    """A wrong type in a page with a wrong checksum is reported as the wrong checksum."""
    page = bytearray(changed(56, "<16s", b"BLOBFS"))
    page[100] ^= 1
    with pytest.raises(FormatError, match="checksum is"):
        parse_superblock(bytes(page), SIZE)


def test_truncated():
    with pytest.raises(FormatError, match="only 100 of 4096 bytes"):
        parse_superblock(planned().pack()[:100], 100)


def test_old_versions():
    """Before version 3 there was no blob id mask, and at first no sizes."""
    page = bytearray(planned().pack())
    struct.pack_into("<I", page, 8, 2)
    struct.pack_into("<IIQII", page, 72, 0, 0, 0, 0, 0)
    superblock = parse_superblock(sealed(page), SIZE)
    assert superblock.used_blobid_mask_len == 0
    assert (superblock.size, superblock.io_unit_size, superblock.page_size) == (SIZE, 4096, 4096)


def test_larger_metadata_pages():
    superblock = plan_superblock(SIZE, cluster_size=MIB, page_size=16384)
    assert parse_superblock(superblock.pack(), SIZE).page_size == 16384
    assert superblock.metadata_clusters == 3


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data, seal):
    page = data.ljust(4096, b"\0")
    with pytest.raises(FormatError):
        parse_superblock(sealed(page) if seal else page, SIZE)


@given(st.integers(0, 95), st.binary(min_size=1, max_size=12))
def test_any_fields(offset, data):
    """Whatever is accepted describes regions inside the device."""
    page = bytearray(planned().pack())
    page[offset : offset + len(data)] = data
    try:
        superblock = parse_superblock(sealed(page[:4096]), SIZE)
    except FormatError:
        return
    end = (superblock.md_start + superblock.md_len) * superblock.page_size
    assert end <= superblock.metadata_clusters * superblock.cluster_size <= SIZE


@given(
    st.integers(1 << 20, 1 << 44),
    st.sampled_from([4096, 65536, MIB, 4 * MIB, 3 * 4096]),
    st.sampled_from([512, 4096]),
    st.integers(1, 300),
)
def test_every_plan_can_be_read(size, cluster_size, block_size, md_ratio):
    try:
        superblock = plan_superblock(
            size, cluster_size=cluster_size, block_size=block_size, md_ratio=md_ratio
        )
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSPC):
            raise
        return
    assert parse_superblock(superblock.pack(), size) == superblock


def test_growing():
    superblock = planned()
    grown = grown_superblock(superblock, 4 * SIZE)
    assert (grown.total_clusters, grown.md_len, grown.clean) == (512, 128, False)
    assert parse_superblock(grown.pack(), 4 * SIZE) == grown
    with pytest.raises(OSError, match="room to count 32728 clusters") as info:
        grown_superblock(superblock, 32729 * MIB)
    assert info.value.errno == errno.ENOSPC
    assert grown_superblock(superblock, 32728 * MIB).used_cluster_mask_len == 1


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("size", [4 * SIZE, 4 * SIZE + 3 * 4096, 40000 * MIB])
@pytest.mark.parametrize("fields_are_new", [False, True])
def test_torn_while_growing(clean: bool, size: int, fields_are_new: bool) -> None:
    """The fields of one superblock and the checksum of the other; 40000 clusters take a longer
    mask."""
    before = replace(planned(), used_blobid_mask_start=10, md_start=20, clean=clean)
    after = grown_superblock(before, size)
    old, new = before.pack(), after.pack()
    page = new[:512] + old[512:] if fields_are_new else old[:512] + new[512:]
    superblock = parse_superblock(page, size, masked_clusters=before.total_clusters)
    expected = after if fields_are_new else before
    assert superblock == replace(expected, torn=True, clean=False)


@given(st.integers(0, 4095), st.integers(1, 255), st.integers(0, 1 << 32))
def test_no_other_damage_is_taken_for_a_torn_page(offset: int, change: int, masked: int) -> None:
    page = bytearray(planned().pack())
    page[offset] ^= change
    try:
        superblock = parse_superblock(bytes(page), SIZE, masked_clusters=masked)
    except FormatError:
        return
    assert superblock.torn
    assert 16 <= offset < 20 or offset in (*range(44, 48), *range(80, 88))
