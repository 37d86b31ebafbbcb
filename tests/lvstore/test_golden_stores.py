"""Stores written by SPDK itself are read exactly."""

import hashlib
import struct

import golden
import pytest
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore


def open_golden(name, tmp_path, **options):
    path = golden.unpack(name, tmp_path)
    if name == "esnap_b512" and "external_snapshots" not in options:
        external = golden.unpack("esnap_ext", tmp_path)
        options["external_snapshots"] = {golden.EXTERNAL_ID: external}
    return Lvstore.open(path, **options)


def content_sha256(expected):
    return expected.get("content_sha256") or expected["content_sha256_with_ext"]


def assert_as_in_manifest(store, manifest):
    expected_store = manifest["lvstores"][0]
    assert store.name == expected_store["name"]
    assert store.uuid == expected_store["uuid"]
    assert store.cluster_size == expected_store["cluster_size"]
    assert store.block_size == expected_store["block_size"]
    assert store.total_clusters == expected_store["total_data_clusters"]
    assert store.free_clusters == expected_store["free_clusters"]
    assert store.damaged == []
    assert {lvol.name for lvol in store.lvols} == set(map(golden.lvol_name, manifest["lvols"]))
    for expected in manifest["lvols"]:
        assert_lvol(store, expected)


def assert_lvol(store, expected):
    lvol = store.get(expected["alias"])
    assert store.get(expected["uuid"]) is lvol
    assert lvol.size == expected["size"]
    assert lvol.creation_time == expected["creation_time"]
    assert lvol.is_thin == expected["is_thin_provisioned"]
    assert lvol.is_snapshot == expected["is_snapshot"]
    assert lvol.is_clone == expected["is_clone"]
    assert lvol.is_external_clone == expected["is_esnap_clone"]
    assert (lvol.parent.name if lvol.parent else None) == expected.get("base_snapshot")
    assert {child.name for child in lvol.children} == set(expected.get("clones", []))
    assert lvol.num_allocated_clusters == expected["num_allocated_clusters"]
    own = golden.bits(lvol.fragmap(), lvol.num_clusters)
    assert own == expected["own_clusters"] == golden.fragmap_bits(expected)
    digest = hashlib.sha256(lvol.pread(lvol.size, 0)).hexdigest()
    assert digest == content_sha256(expected)
    if "snapshot_checksum" in expected:
        stored = struct.unpack("<Q", lvol.get_xattr("checksum"))[0]
        assert stored == expected["snapshot_checksum"]


@pytest.mark.parametrize("name", golden.STORES)
@pytest.mark.parametrize("read_only", [True, False])
def test_opens_lists_and_reads(name, read_only, tmp_path):
    with open_golden(name, tmp_path, read_only=read_only) as store:
        assert store.replayed != golden.manifest(name)["clean_shutdown"]
        assert_as_in_manifest(store, golden.manifest(name))


@pytest.mark.parametrize("name", golden.STORES)
def test_replay_finds_the_same(name, tmp_path):
    with open_golden(name, tmp_path, force_replay=True) as store:
        assert store.replayed
        assert_as_in_manifest(store, golden.manifest(name))


@pytest.mark.parametrize("name", golden.STORES)
def test_reading_changes_nothing(name, tmp_path):
    path = golden.unpack(name, tmp_path)
    before = (tmp_path / f"{name}.img").read_bytes()
    with Lvstore.open(path, read_only=True) as store:
        for lvol in store.lvols:
            if not lvol.degraded:
                lvol.pread(lvol.size, 0)
    assert (tmp_path / f"{name}.img").read_bytes() == before


@pytest.mark.parametrize("name", golden.STORES)
def test_after_a_change_another_reader_agrees(name, tmp_path):
    with open_golden(name, tmp_path) as store:
        path = store.path
        store.create_volume("added", 3 * store.cluster_size).pwrite(b"x" * 10000, 4321)
        store.get("added").snapshot("added-snapshot")
        expected = {lvol.name: lvol.pread(lvol.size, 0) for lvol in store.lvols}
    external = b""
    if name == "esnap_b512":
        external = (tmp_path / "esnap_ext.img").read_bytes()
    with SpdkStore(path) as other:
        assert other.clean == 1
        other.assert_consistent()
        assert set(other.lvols()) == set(expected)
        for lvol_name, blob in other.lvols().items():
            assert other.content(blob, external) == expected[lvol_name], lvol_name
    assert check_store(path) == []
    with Lvstore.open(path, read_only=True) as store:
        assert not store.replayed


def test_external_snapshot_missing(tmp_path):
    with open_golden("esnap_b512", tmp_path, external_snapshots={}) as store:
        lvol = store.get("ec")
        assert lvol.degraded
        assert lvol.external_id == golden.EXTERNAL_ID
        own = lvol.pread(store.cluster_size, 2 * store.cluster_size)
        assert any(own)
        with pytest.raises(OSError, match="external snapshot that it needs is not at hand"):
            lvol.pread(4096, 0)


def test_store_of_clean_spdk_has_no_findings(tmp_path):
    for name in golden.STORES:
        findings = [f for f in check_store(golden.unpack(name, tmp_path)) if f.severity != "note"]
        if name != "unclean_md":
            assert findings == []
        else:
            assert [f.text.split(";")[0] for f in findings] == ["its creation was interrupted"]
