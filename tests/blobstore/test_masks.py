"""Masks: one bit an item, and what may be wrong with them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.masks import MaskKind, bits_of, bits_set, pack_mask, parse_mask

lengths = st.integers(1, 500)


@given(lengths.flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_round_trip(case):
    length, items = case
    bits = bits_of(items, length)
    region = pack_mask(MaskKind.PAGES, length, bits, 4096)
    assert len(region) == 4096
    assert region[:5] == struct.pack("<BI", 0, length)
    assert set(bits_set(parse_mask(region, MaskKind.PAGES, length))) == items


def test_bits_are_least_significant_first():
    assert bits_of([0, 9], 16) == b"\x01\x02"


def test_bits_past_the_end_are_cleared():
    region = pack_mask(MaskKind.PAGES, 3, b"\xff", 4096)
    assert parse_mask(region, MaskKind.PAGES, 3) == b"\x07"


def test_only_cluster_masks_may_be_longer():
    region = pack_mask(MaskKind.CLUSTERS, 100, bytes(13), 4096)
    assert len(parse_mask(region, MaskKind.CLUSTERS, 90)) == 12
    region = pack_mask(MaskKind.PAGES, 100, bytes(13), 4096)
    with pytest.raises(FormatError, match="length is 100 bits, not 90"):
        parse_mask(region, MaskKind.PAGES, 90)


@pytest.mark.parametrize(
    ("region", "text"),
    [
        (b"", "only 0 bytes"),
        (bytes(4096), "length is 0 bits"),
        (struct.pack("<BI", 2, 100) + bytes(13), "type is 2, not 0"),
        (struct.pack("<BI", 0, 99) + bytes(13), "length is 99 bits"),
        (struct.pack("<BI", 0, 100) + bytes(12), "do not fit its 17 bytes"),
    ],
)
def test_bad_masks(region, text):
    with pytest.raises(FormatError, match=text):
        parse_mask(region, MaskKind.PAGES, 100)


def test_no_room():
    with pytest.raises(FormatError, match="do not fit 4096"):
        pack_mask(MaskKind.PAGES, 40000, bytes(5000), 4096)
