"""Descriptors are understood, or it is said what is wrong; what came before is kept."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvolfs.blobstore.descriptors import BlobMetadata, parse_blob
from lvolfs.blobstore.metadata_page import NO_PAGE, Chain, MetadataPage, follow_chain

BLOB = 1 << 32 | 5


def record(kind, payload=b""):
    return struct.pack("<BI", kind, len(payload)) + payload


def flags(invalid=4, data_ro=0, md_ro=0):
    return record(3, struct.pack("<QQQ", invalid, data_ro, md_ro))


def table(clusters, *entries):
    payload = struct.pack("<Q", clusters)
    return record(5, payload + b"".join(struct.pack("<II", *entry) for entry in entries))


def rle(*entries):
    return record(1, b"".join(struct.pack("<II", *entry) for entry in entries))


def parse(*areas):
    chain = Chain(BLOB)
    for index, area in enumerate(areas):
        chain.indices.append(5 + index)
        chain.pages.append(MetadataPage(BLOB, index, NO_PAGE, area.ljust(4072, b"\0")))
    return parse_blob(chain, 1000)


def test_head_round_trip():
    metadata = BlobMetadata(
        5, 1, 2, {"name": b"n\0", "x": b"", "é": bytes(300)}, {"SNAP": bytes(8)}
    )
    blob = parse(metadata.pack_head() + table(0))
    assert blob.damage is None
    assert blob.metadata.invalid == 7
    assert (blob.metadata.data_ro, blob.metadata.md_ro) == (1, 2)
    assert blob.metadata.xattrs == metadata.xattrs
    assert blob.metadata.internal == metadata.internal


def test_names_that_are_not_utf8_round_trip():
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    head = BlobMetadata(xattrs={name: b"v"}).pack_head()
    assert b"\xff\xfev" in head
    assert parse(head + table(0)).metadata.xattrs == {name: b"v"}


def test_extent_table_over_several_descriptors_and_pages():
    blob = parse(flags() + table(2000, (7, 1), (0, 1)), table(2000, (9, 1)), table(2000, (12, 1)))
    assert blob.damage is None
    assert (blob.num_clusters, blob.extent_pages) == (2000, {0: 7, 2: 9, 3: 12})


def test_run_of_absent_extent_pages():
    blob = parse(flags(5) + table(512 * 100, (0, 98), (3, 1), (0, 1)))
    assert blob.extent_pages == {98: 3}


def test_run_length_extents():
    blob = parse(flags(1) + rle((10, 3), (0, 2)) + rle((20, 1)))
    assert blob.damage is None
    assert blob.rle
    assert blob.num_clusters == 6
    assert blob.runs == [(0, 10, 3), (5, 20, 1)]


def test_neither_table_nor_runs():
    blob = parse(flags(0))
    assert (blob.damage, blob.rle, blob.num_clusters) == (None, True, 0)


def test_checksum_records():
    records = struct.pack("<QI", 7, 3) + struct.pack("<QI", 0, 9)
    blob = parse(flags() + table(0) + record(7, records), record(7, records))
    assert blob.checksums == records * 2


def test_padding_and_unknown_types_are_skipped():
    blob = parse(flags() + record(0, b"pad") + record(77, b"new") + table(0))
    assert blob.damage is None
    assert blob.unknown_types == {77}


def test_the_first_of_two_xattrs_counts():
    body = struct.pack("<HH", 1, 1)
    blob = parse(flags() + record(2, body + b"xa") + record(2, body + b"xb") + table(0))
    assert blob.metadata.xattrs == {"x": b"a"}


@pytest.mark.parametrize(
    ("area", "text"),
    [
        (record(3, bytes(23)), "flags of 23 bytes"),
        (flags(16) + table(0), "0x10 are not known"),
        (flags(1 << 63) + table(0), "may not be ignored"),
        (flags() + struct.pack("<BI", 2, 5000), "runs past its page"),
        (flags() + struct.pack("<BI", 2, 0xFFFFFFFF), "runs past its page"),
        (flags() + record(2, b"abc"), "an xattr of 3 bytes"),
        (flags() + record(2, struct.pack("<HH", 5, 5) + b"abc"), "do not add up"),
        (flags() + record(2, struct.pack("<HH", 0xFFFF, 0xFFFF)), "do not add up"),
        (flags() + record(5, b"1234"), "an extent table of 4 bytes"),
        (flags() + record(5, bytes(12)), "an extent table of 12 bytes"),
        (flags() + table(512, (7, 2)), "is listed 2 times"),
        (flags() + table(512, (7, 0)), "is listed 0 times"),
        (flags() + table(512, (0, 2)), "lists more than the blob has"),
        (flags() + table(512, (0, 0)), "lists more than the blob has"),
        (flags() + table(512, (0, 0xFFFFFFFF)), "lists more than the blob has"),
        (flags() + table(512), "lists 0 extent pages instead of 1"),
        (flags() + table(1024, (7, 1)), "lists 1 extent pages instead of 2"),
        (flags() + table(1 << 40, (0, 1)), "are supported"),
        (flags() + table(1, (7, 1)) + table(2), "disagree about the size"),
        (flags(0) + table(0), "flag that announces it is not"),
        (flags() + table(1, (7, 1)) + rle((1, 1)), "both run-length extents"),
        (flags(0) + rle((1, 1)) + table(0), "both run-length extents"),
        (flags(0) + record(1), "run-length extents of 0 bytes"),
        (flags(0) + record(1, bytes(7)), "run-length extents of 7 bytes"),
        (flags(0) + rle((999, 2)), "clusters 999 to 1000 are past the end"),
        (flags(0) + rle((1, 0xFFFFFFFF)), "not supported"),
        (flags(1) + rle((0, 0xFFFFFFFF)), "not supported"),
        (flags() + record(6, bytes(8)), "an extent page stands inside a chain"),
        (flags() + table(0) + record(7, bytes(13)), "checksum records of 13 bytes"),
        (flags() + table(0) + record(7), "checksum records of 0 bytes"),
    ],
)
def test_what_is_wrong(area, text):
    blob = parse(area)
    assert blob.damage is not None
    assert text in blob.damage


def test_what_was_read_before_the_damage_is_kept():
    head = BlobMetadata(xattrs={"name": b"n\0"}).pack_head()
    blob = parse(head + table(2000, (7, 1), (8, 1)) + record(6))
    assert blob.damage is not None
    assert blob.metadata.xattrs == {"name": b"n\0"}
    assert blob.extent_pages == {0: 7, 1: 8}


@given(st.lists(st.binary(max_size=4072), min_size=1, max_size=3))
def test_any_bytes(areas):
    blob = parse(*areas)
    assert blob.damage is not None or blob.num_clusters <= 1 << 28


@given(st.data())
def test_any_damage_to_a_real_blob(data):
    head = BlobMetadata(5, 0, 0, {"name": b"n\0", "uuid": bytes(37)}, {"SNAP": bytes(8)})
    area = bytearray((head.pack_head() + table(1500, (3, 1), (0, 2))).ljust(4072, b"\0"))
    for _ in range(data.draw(st.integers(1, 4))):
        area[data.draw(st.integers(0, 250))] = data.draw(st.integers(0, 255))
    blob = parse(bytes(area))
    assert all(extent < -(-blob.num_clusters // 512) for extent in blob.extent_pages)


# -- chains


def page(blob_id, sequence, following):
    end = struct.pack("<II", following, 0)
    return struct.pack("<QII", blob_id, sequence, 0) + bytes(4072) + end


@pytest.mark.parametrize(
    ("pages", "damage"),
    [
        ({5: page(BLOB, 0, NO_PAGE)}, None),
        ({5: page(BLOB, 0, 8), 8: page(BLOB, 1, NO_PAGE)}, None),
        ({}, "metadata page 5 has a wrong checksum"),
        ({5: page(BLOB, 0, 8)}, "metadata page 8 has a wrong checksum"),
        ({5: page(BLOB, 0, 5)}, "metadata page 5 comes twice"),
        ({5: page(BLOB, 0, 8), 8: page(BLOB, 1, 5)}, "metadata page 5 comes twice"),
        ({5: page(BLOB, 0, 100)}, "metadata page 100 is past the end"),
        ({5: page(BLOB + 1, 0, NO_PAGE)}, "belongs to blob 0x100000006"),
        ({5: page(BLOB, 0, 8), 8: page(BLOB, 2, NO_PAGE)}, "is number 2, not 1"),
    ],
)
def test_chains(pages, damage):
    chain = follow_chain(BLOB, 100, lambda index: pages.get(index, "has a wrong checksum"))
    assert (chain.damage is None) == (damage is None)
    assert (damage or "") in (chain.damage or "")
