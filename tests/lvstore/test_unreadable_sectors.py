"""Sectors of the metadata that the device cannot read cost the lvols whose they are, no others."""

import errno
import random
import re

import pytest
from image_editor import ImageEditor

from lvolfs._native.device import Device
from lvolfs.blobstore import check as checking
from lvolfs.blobstore.check import check_store
from lvolfs.lvstore import store as opening
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10
MIB = 1 << 20


def pattern(seed):
    return random.Random(seed).randbytes(3 * CLUSTER)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """good (a volume of several extents), base <- top; `long` has a chain of several pages."""
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    path = str(tmp_path / "image")
    with Lvstore.create(path, size=16 * MIB, cluster_size=CLUSTER) as store:
        good = store.create_volume("good", 600 * CLUSTER)
        good.pwrite(pattern(1), 0)
        good.pwrite(pattern(1), 590 * CLUSTER)
        top = store.create_volume("top", 5 * CLUSTER)
        top.pwrite(pattern(2), 0)
        top.snapshot("base")
        top.pwrite(pattern(3), CLUSTER)
        long = store.create_volume("long", 5 * CLUSTER)
        for number in range(3):
            long.set_xattr(f"x{number}", bytes(3000))
        long.pwrite(pattern(4), CLUSTER)
    return ImageEditor(path)


EXPECTED = {
    "good": {0: pattern(1), 590 * CLUSTER: pattern(1)},
    "base": {0: pattern(2)},
    "top": {CLUSTER: pattern(3)},
    "long": {CLUSTER: pattern(4)},
}


class Faulty:
    """Opens devices on which some ranges cannot be read."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def lose(self, *ranges, error=errno.EIO):
        def open_device(path, **options):
            device = Device(path, **options)
            for offset, length in ranges:
                device.plant_fault("read", error, offset=offset, length=length)
            return device

        for module in (opening, checking):
            self.monkeypatch.setattr(module, "Device", open_device)


@pytest.fixture
def faulty(monkeypatch):
    return Faulty(monkeypatch)


def check_intact(store, lost):
    for name, pieces in EXPECTED.items():
        if name in lost:
            with pytest.raises(OSError, match=r"no lvol|damaged"):
                store.get(name)
        else:
            for offset, data in pieces.items():
                assert store.get(name).pread(len(data), offset) == data


def lost_with(image, page):
    """The lvols that a metadata page belongs to, with their clones."""
    lost = {
        name
        for name, blob in image.lvols.items()
        if page in [*blob.chain, *(p for p in blob.extent_pages if p)]
    }
    return lost | ({"top"} if "base" in lost else set())


@pytest.mark.parametrize("unclean", [False, True])
def test_each_page_that_cannot_be_read(image, faulty, unclean):
    if unclean:
        image.mark_unclean()
    before = image.path.read_bytes()
    used = sorted(
        {
            page
            for blob in image.blobs.values()
            for page in [*blob.chain, *blob.extent_pages]
            if page
        }
    )
    assert len(used) >= 11
    for page in used:
        image.path.write_bytes(before)
        faulty.lose((image.page_offset(page), 512))
        findings = check_store(str(image.path))
        named = [f for f in findings if re.search(rf"page,? {page}\b", f.object + f.text)]
        assert "error" in {finding.severity for finding in named}, (page, findings)
        lost = lost_with(image, page)
        with Lvstore.open(str(image.path)) as store:
            check_intact(store, lost)
            # What is new takes nothing that the lost ones have.
            store.create_volume("new", 9 * CLUSTER).pwrite(b"n" * 9 * CLUSTER, 0)
        # The sector has come back, say in a copy of the device: nothing is lost.
        faulty.lose()
        with Lvstore.open(str(image.path)) as store:
            assert store.damaged == []
            check_intact(store, set())
            store.get("new").delete()
        assert check_store(str(image.path)) == []


def test_unreadable_pages_that_nobody_uses(image, faulty):
    free = max(page for blob in image.blobs.values() for page in blob.chain) + 40
    image.write(image.page_offset(free), b"left over")
    faulty.lose((image.page_offset(free), 4096))
    assert check_store(str(image.path)) == []
    image.mark_unclean()
    findings = check_store(str(image.path))
    assert [(f.severity, f.object) for f in findings if f.severity == "error"] == [
        ("error", f"metadata page {free}")
    ]
    with Lvstore.open(str(image.path)) as store:
        check_intact(store, set())
        # It is not handed out.
        for number in range(60):
            assert store.create_volume(f"n{number}", 0).blob.id & 0xFFFFFFFF != free


def test_masks_that_cannot_be_read(image, faulty):
    faulty.lose((image.pg, 3 * image.pg))
    findings = check_store(str(image.path))
    assert [(f.severity, f.object) for f in findings] == [("warning", "masks")]
    assert "cannot be read" in findings[0].text
    with Lvstore.open(str(image.path)) as store:
        check_intact(store, set())


def test_all_of_the_metadata(image, faulty):
    """Nothing is found, nothing is overwritten, and all is back when the device reads again."""
    faulty.lose((image.page_offset(0), 200 * image.pg))
    with Lvstore.open(str(image.path)) as store:
        assert store.lvols == []
        assert len(store.damaged) == len(image.blobs)
    faulty.lose()
    with Lvstore.open(str(image.path)) as store:
        check_intact(store, set())


def test_the_superblock(image, faulty):
    before = image.path.read_bytes()
    faulty.lose((0, 512))
    findings = check_store(str(image.path))
    assert [(f.severity, f.object) for f in findings] == [("error", "superblock")]
    with pytest.raises(OSError, match=r"cannot be read") as info:
        Lvstore.open(str(image.path))
    for text in [findings[0].text, str(info.value)]:
        assert "superblock cannot be read" in text
        assert "ddrescue" in text
    assert image.path.read_bytes() == before


@pytest.mark.parametrize("error", [errno.ENODEV, errno.ENXIO])
def test_a_device_that_goes_away_while_it_is_opened(image, faulty, error):
    """That is not damage: nothing is opened, and nothing is written."""
    before = image.path.read_bytes()
    image.mark_unclean()
    unclean = image.path.read_bytes()
    assert before != unclean
    faulty.lose((image.page_offset(0), 200 * image.pg), error=error)
    with pytest.raises(OSError, match="reading metadata pages") as info:
        Lvstore.open(str(image.path))
    assert info.value.errno == error
    assert image.path.read_bytes() == unclean


def test_repair_salvages_the_others(image, faulty, capsys):
    """`check --repair` names what is lost, and leaves a store that opens with all others."""
    from lvolfs.cli.main import main

    image.mark_unclean()
    page = image.lvols["long"].chain[1]
    faulty.lose((image.page_offset(page), 512))
    assert main(["check", str(image.path), "--repair"]) == 3
    said = capsys.readouterr().out
    errors = [line for line in said.splitlines() if line.startswith("error")]
    title = f"lvol 'long' (blob {image.lvols['long'].id:#x})"
    assert errors == [f"error: {title}: metadata page {page} cannot be read"]
    with Lvstore.open(str(image.path)) as store:
        assert [blob.blob_id for blob in store.damaged] == [image.lvols["long"].id]
        check_intact(store, {"long"})


def test_lost_lvols_can_be_given_up(image, faulty, monkeypatch, capsys):
    from lvolfs.cli.main import main
    from lvolfs.lvstore import damaged

    faulty.lose((image.page_offset(image.lvols["base"].chain[0]), 512))
    monkeypatch.setattr(damaged, "Device", opening.Device)
    assert main(["check", str(image.path), "--repair", "--remove-damaged"]) == 3
    assert "removed with its data" in capsys.readouterr().out
    # The sectors were written anew, and can be read.
    faulty.lose()
    with Lvstore.open(str(image.path)) as store:
        assert store.damaged == []
        check_intact(store, {"base", "top"})
        free = store.free_clusters
    with Lvstore.open(str(image.path), force_replay=True) as store:
        assert store.free_clusters == free
