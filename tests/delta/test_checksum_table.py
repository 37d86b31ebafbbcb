"""The two stored forms of a checksum table, whole and damaged."""

import errno
import mmap
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvolfs.delta import checksum_table as ct

SIZE = 65536


def bitmap(indexes, count):
    found = bytearray(-(-count // 8))
    for index in indexes:
        found[index >> 3] |= 1 << (index & 7)
    return bytes(found)


def table(count, owned, registered, algorithm="xxh3"):
    values = array("Q", bytes(8 * count))
    for c in registered:
        values[c] = (c + 1) * 0x0123456789ABCDEF & (2**64 - 1)
    return ct.make_table(algorithm, SIZE, bitmap(owned, count), bitmap(registered, count), values)


@st.composite
def tables(draw):
    count = draw(st.integers(1, 1200))
    owned = draw(st.sets(st.integers(0, count - 1), max_size=60))
    registered = draw(st.sets(st.sampled_from(sorted(owned)))) if owned else set()
    return table(count, owned, registered, draw(st.sampled_from(ct.ALGORITHMS)))


def decoded(found, xattrs):
    return ct.decode_xattrs(
        found.algorithm,
        xattrs,
        cluster_size=SIZE,
        num_clusters=found.num_clusters,
        owned=found.owned,
    )


@given(tables())
def test_xattrs_give_the_table_back(found):
    xattrs = ct.encode_xattrs(found)
    again = decoded(found, {"name": b"x", **xattrs})
    assert again == found
    for name, value in xattrs.items():
        assert 9 + len(name) + len(value) <= 4072
        assert ct.is_table_xattr(name, found.algorithm)


def test_a_full_chunk_fits_a_metadata_page():
    count = 496 * 3
    for name, value in ct.encode_xattrs(table(count, range(count), range(count))).items():
        assert 9 + len(name) + len(value) <= 4072


@given(tables(), st.data())
def test_damaged_xattrs_are_not_believed(found, data):
    xattrs = ct.encode_xattrs(found)
    name = data.draw(st.sampled_from(sorted(xattrs)))
    kind = data.draw(st.sampled_from(["drop", "cut", "flip", "grow"]))
    value = xattrs[name]
    if kind == "drop":
        del xattrs[name]
    elif kind == "cut":
        xattrs[name] = value[: data.draw(st.integers(0, len(value) - 1))]
    elif kind == "grow":
        xattrs[name] = value + b"\0"
    else:
        at = data.draw(st.integers(0, len(value) - 1))
        mask = 1 << data.draw(st.integers(0, 7))
        xattrs[name] = value[:at] + bytes([value[at] ^ mask]) + value[at + 1 :]
    if kind == "drop" and not xattrs:
        assert decoded(found, xattrs) is None
        return
    with pytest.raises(ct.CorruptTableError):
        decoded(found, xattrs)


def test_a_table_made_for_fewer_owned_clusters_is_stale():
    found = table(100, {1, 2}, {1, 2})
    with pytest.raises(ct.CorruptTableError, match="owned 2 clusters, now 3"):
        ct.decode_xattrs(
            "xxh3",
            ct.encode_xattrs(found),
            cluster_size=SIZE,
            num_clusters=100,
            owned=bitmap({1, 2, 3}, 100),
        )


@given(st.integers(1, 300), st.data())
def test_records_give_the_crc64_table_back(count, data):
    owned = data.draw(st.sets(st.integers(0, count - 1)))
    found = table(count, owned, owned, "crc64")
    records = ct.encode_records(found.values)
    assert len(records) % 12 == 0
    again = ct.decode_records(
        records, found.snapshot_checksum, cluster_size=SIZE, num_clusters=count, owned=found.owned
    )
    assert again == found


def test_records_are_as_longhorn_writes_them():
    values = array("Q", [0, 0, 0, 5, 5, 0, 9, 0, 0])
    pieces = [(0, 3), (5, 1), (5, 1), (0, 1), (9, 1), (0, 2)]
    assert ct.encode_records(values) == b"".join(struct.pack("<QI", *piece) for piece in pieces)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (b"\0" * 11, "bytes of records"),
        (struct.pack("<QI", 0, 0), "records for more than"),
        (struct.pack("<QI", 0, 9), "records for more than"),
        (struct.pack("<QI", 0, 7), "records for 7 clusters of 8"),
        (struct.pack("<QIQI", 0, 7, 3, 1), "is not owned"),
        (struct.pack("<QI", 3, 8), "is not owned"),
        (struct.pack("<QIQI", 3, 1, 0, 7), "do not add up"),
    ],
)
def test_damaged_records_are_not_believed(records, why):
    with pytest.raises(ct.CorruptTableError, match=why):
        ct.decode_records(records, 77, cluster_size=SIZE, num_clusters=8, owned=bitmap({0}, 8))


def test_the_whole_checksum_alone_tells_nothing_about_clusters():
    found = ct.decode_records(b"", 77, cluster_size=SIZE, num_clusters=8, owned=bitmap({0}, 8))
    assert found.snapshot_checksum == 77
    assert not found.complete
    assert (found.state(0), found.checksum(0)) == ("written", None)
    assert (found.state(1), found.checksum(1)) == ("unwritten", None)
    with pytest.raises(IndexError):
        found.state(8)


def test_an_owned_cluster_whose_crc_is_zero_is_told_by_the_map():
    values = array("Q", [0, 5])
    found = ct.make_table("crc64", SIZE, b"\x03", b"\x03", values)
    again = ct.decode_records(
        ct.encode_records(values),
        found.snapshot_checksum,
        cluster_size=SIZE,
        num_clusters=2,
        owned=b"\x03",
    )
    assert again.checksum(0) == 0
    assert again.state(0) == "written"


def test_a_kernel_without_huge_pages(monkeypatch):
    class Memory(mmap.mmap):
        def madvise(self, *_arguments):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Memory)
    values = ct.zero_values(1 << 20)
    assert isinstance(values, memoryview)
    assert (len(values), values[-1]) == (1 << 20, 0)
