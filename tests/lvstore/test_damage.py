"""Stores that are not as they should be: one bad blob costs that blob, and the error names it."""

import errno
import os
import random
import struct

import pytest
from image_editor import ImageEditor
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10


def pattern(seed):
    return random.Random(seed).randbytes(3 * CLUSTER)


@pytest.fixture
def image(tmp_path):
    """A cleanly closed store: good (a volume), base <- top (a snapshot and its clone)."""
    path = str(tmp_path / "image")
    with Lvstore.create(path, size=16 << 20, cluster_size=CLUSTER) as store:
        good = store.create_volume("good", 600 * CLUSTER)
        good.pwrite(pattern(1), 0)
        good.pwrite(pattern(1), 590 * CLUSTER)
        top = store.create_volume("top", 5 * CLUSTER)
        top.pwrite(pattern(2), 0)
        top.snapshot("base")
        top.pwrite(pattern(3), CLUSTER)
    return ImageEditor(path)


def open_damaged(image, names, text, *, unclean=False, readers=("good",)):
    """Opens; `names` are damaged for a reason that has `text` in it, the others are whole."""
    if unclean:
        image.mark_unclean()
    findings = check_store(str(image.path))
    assert any(f.severity == "error" for f in findings)
    store = Lvstore.open(str(image.path))
    try:
        assert {blob.name for blob in store.damaged} == set(names)
        assert any(text in blob.reason for blob in store.damaged), store.damaged
        for name in readers:
            assert store.get(name).pread(3 * CLUSTER, 0) == pattern(1)
        for name in filter(None, names):
            with pytest.raises(OSError, match=f"'{name}' of store 'lvs0' is damaged") as info:
                store.get(name)
            assert info.value.errno == errno.EIO
        # nothing that a damaged blob may own is handed out
        owned = {c for blob in image.blobs.values() for c in blob.clusters if c}
        fresh = store.create_volume("fresh", 100 * CLUSTER)
        fresh.pwrite(os.urandom(100 * CLUSTER), 0)
        if not unclean:
            assert not owned & set(struct.unpack("<100I", fresh.blob.clusters()))
        fresh.delete()
    finally:
        store.close()
    # and after closing it is still there, still damaged
    with Lvstore.open(str(image.path)) as store:
        assert {blob.name for blob in store.damaged} == set(names)


@pytest.mark.parametrize("unclean", [False, True])
def test_extent_page_with_a_wrong_checksum(image, unclean):
    image.flip(image.page_offset(image.lvols["base"].extent_pages[0]) + 100)
    open_damaged(image, ["base", "top"], "wrong CRC", unclean=unclean)


@pytest.mark.parametrize("unclean", [False, True])
def test_first_page_with_a_wrong_checksum(image, unclean):
    """Its name is lost, its clone cannot be shown."""
    image.flip(image.page_offset(image.lvols["base"].chain[0]) + 2000)
    open_damaged(image, [None, "top"], "wrong checksum", unclean=unclean)


@pytest.mark.parametrize("cluster", [0xFFFFFFFF, 256, 1 << 20])
@pytest.mark.parametrize("unclean", [False, True])
def test_cluster_past_the_end(image, cluster, unclean):
    image.set_cluster("top", 1, cluster)
    open_damaged(image, ["top"], "past the end of the store", unclean=unclean)


@pytest.mark.parametrize("unclean", [False, True])
def test_cluster_inside_the_metadata(image, unclean):
    image.set_cluster("top", 1, 3)
    open_damaged(image, ["top"], "cannot own", unclean=unclean)


@pytest.mark.parametrize("unclean", [False, True])
def test_cluster_owned_twice(image, unclean):
    """Neither owner can be trusted."""
    image.set_cluster("top", 1, image.lvols["base"].clusters[0])
    open_damaged(image, ["base", "top"], "is also used by", unclean=unclean)


def test_extent_page_owned_twice(image):
    root = image.lvols["top"].chain[0]
    mine = struct.pack("<II", image.lvols["top"].extent_pages[0], 1)
    other = struct.pack("<II", image.lvols["base"].extent_pages[0], 1)
    image.replace_in_page(root, mine, other)
    open_damaged(image, ["base", "top"], "is also used by")


@pytest.mark.parametrize("page", [0xFFFFFFF0, 256, 5000])
def test_extent_page_past_the_end(image, page):
    root = image.lvols["top"].chain[0]
    mine = struct.pack("<II", image.lvols["top"].extent_pages[0], 1)
    image.replace_in_page(root, mine, struct.pack("<II", page, 1))
    open_damaged(image, ["top"], "past the end of the metadata")


def test_missing_parent(image):
    image.set_link("top", "SNAP", 1 << 32 | 200)
    open_damaged(image, ["top"], "its parent, blob 0x1000000c8, is missing")


def test_no_new_lvol_takes_the_place_of_a_missing_parent(image):
    """Without the masks, which would have the page as used, its page looks free."""
    image.write(image.page_offset(image.lvols["base"].chain[0]), bytes(4096))
    image.mark_unclean()
    image.write(4096, bytes(4096))
    missing = image.lvols["base"].id
    for _ in range(2):
        with Lvstore.open(str(image.path)) as store:
            assert [blob.name for blob in store.damaged] == ["top"]
            for number in range(10):
                volume = store.create_volume(f"v{number}", CLUSTER)
                assert volume.blob.id != missing
            for lvol in store.volumes:
                if lvol.name != "good":
                    lvol.delete()


def test_the_stores_own_blob_as_parent(image):
    (own,) = set(image.blobs) - {blob.id for blob in image.lvols.values()}
    image.set_link("top", "SNAP", own)
    open_damaged(image, ["top"], "the store's own blob")


def test_parents_in_a_loop(image, tmp_path):
    image.set_link("top", "SNAP", image.lvols["top"].id)
    open_damaged(image, ["top"], "is a loop")


def test_longer_loop(tmp_path):
    path = str(tmp_path / "image")
    with Lvstore.create(path, size=16 << 20, cluster_size=CLUSTER) as store:
        store.create_volume("good", 5 * CLUSTER).pwrite(pattern(1), 0)
        volume = store.create_volume("v", CLUSTER)
        for i in range(4):
            volume.snapshot(f"s{i}")
    image = ImageEditor(path)
    image.set_link("s1", "SNAP", image.lvols["s3"].id)
    open_damaged(image, ["s1", "s2", "s3", "v"], "is a loop")


@pytest.mark.parametrize("unclean", [False, True])
def test_unknown_flags_forbid_opening(image, unclean):
    root = image.lvols["top"].chain[0]
    image.edit_page(root, 16 + 5, struct.pack("<Q", 1 << 40 | 7))
    open_damaged(image, ["top"], "may not be ignored", unclean=unclean)


def test_unknown_flags_make_read_only(image):
    root = image.lvols["good"].chain[0]
    image.edit_page(root, 16 + 5 + 8, struct.pack("<Q", 1 << 9))
    with Lvstore.open(str(image.path)) as store:
        good = store.get("good")
        assert store.damaged == []
        assert good.is_read_only
        assert not good.is_snapshot
        assert good.pread(3 * CLUSTER, 0) == pattern(1)
        with pytest.raises(OSError, match="read-only"):
            good.pwrite(b"x", 0)
        with pytest.raises(OSError, match="of a newer format"):
            good.rename("other")
        with pytest.raises(OSError, match="of a newer format"):
            good.snapshot("s")


def test_unknown_flags_make_metadata_read_only(image):
    root = image.lvols["good"].chain[0]
    image.edit_page(root, 16 + 5 + 16, struct.pack("<Q", 1 << 9))
    with Lvstore.open(str(image.path)) as store:
        good = store.get("good")
        assert not good.is_read_only
        for call in (
            lambda: good.rename("other"),
            lambda: good.resize(0),
            lambda: good.set_xattr("x", b""),
            good.set_read_only,
            good.inflate,
        ):
            with pytest.raises(OSError, match="of a newer format"):
                call()


def test_unknown_descriptor(image):
    """Ignored in a store that was closed cleanly; after a crash it might name clusters."""
    root = image.lvols["top"].chain[0]
    at = image.find(root, b"creation_time") - 9
    image.edit_page(root, at, b"\x63")
    with Lvstore.open(str(image.path)) as store:
        assert store.damaged == []
        assert store.get("top").creation_time == ""
        with pytest.raises(OSError, match="of a newer format"):
            store.get("top").rename("other")
    open_damaged(image, ["top"], "unknown types", unclean=True)


@pytest.mark.parametrize(
    ("offset", "data", "text"),
    [
        (16, struct.pack("<BI", 3, 4070), "runs past its page"),
        (16, struct.pack("<BI", 3, 23), "flags of 23 bytes"),
        (8, struct.pack("<I", 7), "is number 7, not 0"),
        (4088, struct.pack("<I", 9999), "past the end of the metadata"),
        (4088, struct.pack("<I", 0), "belongs to blob"),
    ],
)
def test_fields_of_the_first_page(image, offset, data, text):
    image.edit_page(image.lvols["top"].chain[0], offset, data)
    with Lvstore.open(str(image.path)) as store:
        assert store.get("good").pread(3 * CLUSTER, 0) == pattern(1)
        assert [lvol.name for lvol in store.lvols] == ["base", "good"]
        assert any(text in b.reason or "wrong checksum" in b.reason for b in store.damaged) or (
            # number 7 makes it no first page at all for a replay
            offset == 8
        )


def test_thick_lvol_with_a_hole(image, tmp_path):
    root = image.lvols["good"].chain[0]
    image.edit_page(root, 16 + 5, struct.pack("<Q", 4))
    open_damaged(image, ["good"], "not thin, but has clusters", readers=())


def test_a_snapshot_with_a_damaged_clone_is_kept(image):
    image.set_cluster("top", 1, 0xFFFFFFFF)
    with Lvstore.open(str(image.path)) as store:
        with pytest.raises(OSError, match="parent of a damaged lvol") as info:
            store.get("base").delete()
        assert info.value.errno == errno.EBUSY


def test_damaged_super_blob(image):
    image.flip(image.page_offset(0) + 2000)
    with Lvstore.open(str(image.path)) as store:
        assert (store.name, len(store.damaged)) == ("", 1)
        assert store.get("good").pread(3 * CLUSTER, 0) == pattern(1)
        with pytest.raises(OSError, match="its own blob is damaged"):
            store.rename("other")


# -- masks of a store that was closed cleanly


def open_with_wrong_masks(image):
    assert any(f.object == "masks" for f in check_store(str(image.path)))
    with Lvstore.open(str(image.path)) as store:
        assert store.replayed
        assert store.damaged == []
        assert store.get("good").pread(3 * CLUSTER, 0) == pattern(1)
        assert store.get("top").pread(CLUSTER, 0) == pattern(2)[:CLUSTER]
    assert check_store(str(image.path)) == []
    with SpdkStore(str(image.path)) as other:
        other.assert_consistent()


@pytest.mark.parametrize("mask", [1, 2, 3])
@pytest.mark.parametrize("byte", [0, 1, 5, 6])
def test_one_flipped_bit_in_a_mask(image, mask, byte):
    """Types, lengths and bits: the store is replayed and the masks are written anew."""
    if (mask, byte) == (2, 1):
        # a cluster mask may be longer than the store, but not shorter
        image.flip(mask * 4096 + 2, 0)
    else:
        image.flip(mask * 4096 + byte, 3)
    if mask == 3 and byte == 6:
        # blob id 11, whose page is no first page of a blob
        assert 11 not in {blob_id & 0xFFFFFFFF for blob_id in image.blobs}
    open_with_wrong_masks(image)


def test_a_blob_missing_in_the_mask_is_found(image):
    index = image.lvols["good"].chain[0]
    image.flip(3 * 4096 + 5 + index // 8, index % 8)
    open_with_wrong_masks(image)


def test_masks_of_zeros(image):
    for mask in (1, 2, 3):
        image.write(mask * 4096, bytes(4096))
    open_with_wrong_masks(image)


# -- what an interrupted deletion of SPDK leaves behind


def test_clone_shares_clusters_with_its_parent(image):
    """The clone lists its parent's cluster already, but still names it: they are parted again."""
    image.set_cluster("top", 0, image.lvols["base"].clusters[0])
    before = image.lvols["base"].clusters[0]
    image.mark_unclean()
    with Lvstore.open(str(image.path)) as store:
        assert store.damaged == []
        top, base = store.get("top"), store.get("base")
        assert top.fragmap()[0] == 0b1110
        top.pwrite(b"changed", 0)
        assert base.pread(3 * CLUSTER, 0) == pattern(2)
        assert struct.unpack_from("<I", base.blob.clusters())[0] == before
    with SpdkStore(str(image.path)) as other:
        other.assert_consistent()


# -- names that cannot be shown


@pytest.mark.parametrize("name", [b"a/b\0", b"..\0\0", b"\0\0\0\0"])
def test_names_that_cannot_be_file_names(image, name):
    root = image.lvols["good"].chain[0]
    image.replace_in_page(root, b"good", name)
    with Lvstore.open(str(image.path)) as store:
        lvol = store.get(image.lvols["good"].xattrs["uuid"][:36].decode())
        assert lvol.name == lvol.uuid
        lvol.rename("good")
    assert Lvstore.open(str(image.path), read_only=True).get("good").name == "good"


def test_name_that_is_not_utf8(image):
    image.replace_in_page(image.lvols["good"].chain[0], b"good", b"g\xff\xfed")
    with Lvstore.open(str(image.path)) as store:
        lvol = store.get("g\udcff\udcfed")
        assert lvol.pread(3 * CLUSTER, 0) == pattern(1)
        assert lvol.name.encode("utf-8", "surrogateescape") == b"g\xff\xfed"


def test_names_that_occur_twice(image):
    image.replace_in_page(image.lvols["base"].chain[0], b"base", b"good")
    assert any("2 lvols have this name" in f.text for f in check_store(str(image.path)))
    with Lvstore.open(str(image.path)) as store:
        assert len({lvol.name for lvol in store.lvols}) == 3
        assert store.get("top").pread(CLUSTER, 0) == pattern(2)[:CLUSTER]
