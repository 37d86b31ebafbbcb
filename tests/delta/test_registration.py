"""Registering, keeping, dropping and verifying the checksums of snapshots."""

import errno
import os
import time

import pytest
import xxhash

from lvolfs._native import checksum as native
from lvolfs.delta import checksums
from lvolfs.delta.jobs import registry
from lvolfs.lvstore.store import Lvstore
from tests import golden
from tests.delta.conftest import CLUSTER, cluster_of, fill, finish
from tests.delta.crc64_iso import crc64
from tests.spdk_reader import SpdkStore


@pytest.fixture
def snapshot(store):
    """Owns clusters 1, 3, 4 and 9 of 12; 4 is all zeros."""
    volume = store.create_volume("v", 12 * CLUSTER)
    fill(volume, [1, 3, 9])
    volume.pwrite(bytes(CLUSTER), 4 * CLUSTER)
    return volume.snapshot("s")


OWNED = [1, 3, 4, 9]


def content(c):
    return bytes(CLUSTER) if c == 4 else cluster_of(("a", c))


@pytest.mark.parametrize("parallel", [1, 2])
def test_xxh3_of_every_owned_cluster(snapshot, parallel):
    job = checksums.register(snapshot, parallel=parallel)
    finish(job)
    assert (job.state, job.total, job.done) == ("complete", 4, 4)
    table = checksums.table(snapshot)
    assert table.algorithm == "xxh3"
    assert table.complete
    for c in range(12):
        owned = c in OWNED
        assert table.state(c) == ("written" if owned else "unwritten")
        expected = xxhash.xxh3_64_intdigest(content(c)) if owned else None
        assert table.checksum(c) == expected


def test_crc64_is_one_running_crc_over_the_owned_clusters(snapshot):
    finish(checksums.register(snapshot, algorithm="crc64"))
    table = checksums.table(snapshot, "crc64")
    running = 0
    for c in OWNED:
        running = crc64(content(c), running)
        assert table.checksum(c) == crc64(content(c))
    assert table.snapshot_checksum == running
    assert snapshot.get_xattr("checksum") == running.to_bytes(8, "little")


@pytest.mark.parametrize("name", golden.STORES)
def test_registering_gives_what_spdk_registered(name, tmp_path):
    external = {}
    if name == "esnap_b512":
        external[golden.EXTERNAL_ID] = golden.unpack("esnap_ext", tmp_path)
    with Lvstore.open(golden.unpack(name, tmp_path), external_snapshots=external) as store:
        for entry in golden.manifest(name)["lvols"]:
            expected = entry.get("snapshot_checksum")
            if expected is None:
                continue
            lvol = store.get(golden.lvol_name(entry))
            assert checksums.table(lvol, "crc64").snapshot_checksum == expected
            assert finish(checksums.verify(lvol, "crc64")).ok
            finish(checksums.register(lvol, algorithm="crc64"))
            assert checksums.table(lvol, "crc64").snapshot_checksum == expected


def test_the_golden_stores_have_checksums_to_compare_with():
    found = [
        entry["snapshot_checksum"]
        for name in golden.STORES
        for entry in golden.manifest(name)["lvols"]
        if entry.get("snapshot_checksum") is not None
    ]
    assert len(found) >= 9


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_survives_reopening(store, snapshot, algorithm):
    finish(checksums.register(snapshot, algorithm=algorithm))
    before = checksums.table(snapshot, algorithm)
    store.close()
    with Lvstore.open(store.path) as again:
        assert checksums.table(again.get("s"), algorithm) == before


def test_crc64_is_on_disk_as_longhorn_keeps_it(store, snapshot):
    finish(checksums.register(snapshot, algorithm="crc64"))
    table = checksums.table(snapshot, "crc64")
    store.close()
    with SpdkStore(store.path) as disk:
        blob = disk.lvols()["s"]
    assert blob.xattrs["checksum"] == table.snapshot_checksum.to_bytes(8, "little")
    listed = []
    for at in range(0, len(blob.checksums), 12):
        value = int.from_bytes(blob.checksums[at : at + 8], "little")
        listed += [value] * int.from_bytes(blob.checksums[at + 8 : at + 12], "little")
    assert listed == [table.checksum(c) or 0 for c in range(12)]


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_ranges_add_up(store, snapshot, algorithm):
    finish(checksums.register(snapshot, [range(4), 5], algorithm))
    table = checksums.table(snapshot, algorithm)
    assert not table.complete
    assert table.snapshot_checksum is None
    assert [c for c in range(12) if table.checksum(c) is not None] == [1, 3]
    assert table.state(9) == "written"
    # Type 7 could not say that cluster 9 is not registered.
    assert snapshot.checksum_records == b""
    store.close()
    with Lvstore.open(store.path) as again:
        lvol = again.get("s")
        assert checksums.table(lvol, algorithm) == table
        finish(checksums.register(lvol, [range(4, 12)], algorithm))
        whole = checksums.table(lvol, algorithm)
        assert whole.complete
        finish(checksums.register(lvol, None, algorithm))
        assert checksums.table(lvol, algorithm) == whole
        assert bool(lvol.checksum_records) == (algorithm == "crc64")


def test_both_algorithms_live_side_by_side(snapshot):
    finish(checksums.register(snapshot, algorithm="crc64"))
    finish(checksums.register(snapshot, algorithm="xxh3"))
    assert checksums.table(snapshot, "crc64").complete
    assert checksums.table(snapshot).algorithm == "xxh3"


def test_a_snapshot_that_owns_nothing(store):
    snapshot = store.create_volume("v", 4 * CLUSTER).snapshot("s")
    finish(checksums.register(snapshot, algorithm="crc64"))
    finish(checksums.register(snapshot, algorithm="xxh3"))
    assert checksums.table(snapshot, "crc64").snapshot_checksum == 0
    assert checksums.table(snapshot, "xxh3").snapshot_checksum == xxhash.xxh3_64_intdigest(b"")


def test_clusters_larger_than_a_slice(make_store):
    size = 3 << 20
    store = make_store("big", clusters=12, cluster_size=size)
    volume = store.create_volume("v", 2 * size)
    fill(volume, [0, 1])
    snapshot = volume.snapshot("s")
    for algorithm, plain in (("xxh3", xxhash.xxh3_64_intdigest), ("crc64", native.crc64)):
        finish(checksums.register(snapshot, algorithm=algorithm))
        table = checksums.table(snapshot, algorithm)
        assert [table.checksum(c) for c in (0, 1)] == [
            plain(cluster_of(("a", c), size)) for c in (0, 1)
        ]


def refused(code, call, *args, match=None, **kwargs):
    with pytest.raises(OSError, match=match) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == code


def test_refusals(store, snapshot):
    refused(errno.EPERM, checksums.register, store.get("v"), match="take a snapshot")
    refused(errno.EINVAL, checksums.register, snapshot, algorithm="md5", match="md5")
    refused(errno.ERANGE, checksums.register, snapshot, [range(5), 12], match="cluster 12")
    refused(errno.ERANGE, checksums.register, snapshot, [2**63], match="past the end")
    refused(errno.EINVAL, checksums.register, snapshot, [])
    refused(errno.ESRCH, checksums.stop, snapshot, match="under way")
    refused(errno.ENODATA, checksums.verify, snapshot, match="checksum register")
    assert snapshot.busy is None
    with snapshot.claim("copy"):
        refused(errno.EBUSY, checksums.register, snapshot, match="copy")
    store.close()
    with Lvstore.open(store.path, read_only=True) as again:
        refused(errno.EROFS, checksums.register, again.get("s"), match="read-only")


def test_stop_keeps_what_was_registered_before(store, snapshot):
    finish(checksums.register(snapshot, [1]))
    before = checksums.table(snapshot)
    job = checksums.register(snapshot, rate=CLUSTER)
    refused(errno.EBUSY, checksums.register, snapshot)
    checksums.stop(snapshot)
    assert job.wait(5)
    assert job.state == "cancelled"
    assert job.errno == errno.ECANCELED
    assert checksums.table(snapshot) == before
    assert snapshot.busy is None
    refused(errno.ESRCH, checksums.stop, snapshot)


def test_a_snapshot_being_hashed_is_not_deleted_under_it(store, snapshot):
    job = checksums.register(snapshot, rate=CLUSTER)
    refused(errno.EBUSY, snapshot.delete)
    job.cancel()
    assert job.wait(5)
    snapshot.delete()


def test_rate_limit(store):
    volume = store.create_volume("v", 64 * CLUSTER)
    fill(volume, range(64))
    snapshot = volume.snapshot("s")
    begun = time.monotonic()
    finish(checksums.register(snapshot, rate=2 * 64 * CLUSTER, parallel=2))
    # All of it in 0.5 s, of which 0.1 s may be unused allowance.
    assert time.monotonic() - begun > 0.35


class TestDropping:
    """A table goes when the snapshot's own data change, and only then."""

    @pytest.fixture
    def chain(self, store):
        volume = store.create_volume("v", 12 * CLUSTER)
        fill(volume, [1])
        volume.snapshot("s1")
        fill(volume, [2], "b")
        upper = volume.snapshot("s2")
        for algorithm in ("xxh3", "crc64"):
            finish(checksums.register(upper, algorithm=algorithm))
        return upper

    @staticmethod
    def registered(lvol):
        return [name for name in ("xxh3", "crc64") if checksums.table(lvol, name) is not None]

    def test_when_a_parent_is_merged_into_it(self, store, chain):
        store.get("s1").delete()
        assert self.registered(chain) == []
        assert not any(name.startswith("lvolfs.") for name in chain.metadata.xattrs)
        assert chain.checksum_records == b""

    def test_a_partial_crc64_table_goes_too(self, store, chain):
        finish(checksums.register(chain, [2], "crc64"))
        snapshot = store.get("s1")
        fill(volume := store.get("v"), [4, 5])
        top = volume.snapshot("s3")
        finish(checksums.register(top, [4], "crc64"))
        assert any(name.startswith("lvolfs.crc64") for name in top.metadata.xattrs)
        chain.delete()
        assert self.registered(top) == []
        assert not any(name.startswith("lvolfs.") for name in top.metadata.xattrs)
        assert snapshot.children == [top]

    @pytest.mark.parametrize("change", ["inflate", "decouple"])
    def test_when_it_gets_its_parents_clusters(self, chain, change):
        getattr(chain, change)()
        assert self.registered(chain) == []

    def test_not_by_detaching(self, chain):
        chain.detach()
        assert self.registered(chain) == ["xxh3", "crc64"]

    def test_not_when_a_child_is_deleted(self, store, chain):
        store.get("v").delete()
        assert self.registered(chain) == ["xxh3", "crc64"]


def damage(lvol, cluster):
    place = int.from_bytes(lvol.blob.clusters()[4 * cluster : 4 * cluster + 4], "little")
    lvol.store.engine.device.pwrite(b"bit rot", place * CLUSTER + 1000)


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_verify_names_damaged_clusters(snapshot, algorithm):
    finish(checksums.register(snapshot, algorithm=algorithm))
    assert finish(checksums.verify(snapshot)).ok
    damage(snapshot, 3)
    damage(snapshot, 9)
    report = finish(checksums.verify(snapshot))
    assert (report.mismatched, report.checked, report.ok) == ([3, 9], 4, False)


def test_verify_with_only_the_snapshots_checksum(snapshot):
    finish(checksums.register(snapshot, algorithm="crc64"))
    snapshot.set_reserved_xattrs({}, b"")
    assert finish(checksums.verify(snapshot)).ok
    damage(snapshot, 3)
    assert finish(checksums.verify(snapshot)).mismatched == OWNED


def test_verify_of_a_partial_table_tells_what_it_could_not_check(snapshot):
    finish(checksums.register(snapshot, [1, 3]))
    report = finish(checksums.verify(snapshot))
    assert (report.checked, report.unregistered, report.ok) == (2, 2, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lvolfs.xxh3", b"short"), ("lvolfs.xxh3.0", b""), ("lvolfs.xxh3.7", bytes(62))],
)
def test_damaged_tables_count_as_not_registered(snapshot, name, value, caplog):
    finish(checksums.register(snapshot))
    snapshot.set_reserved_xattrs({name: value})
    assert checksums.read_table(snapshot, "xxh3")[1] is not None
    finish(checksums.register(snapshot))
    assert checksums.table(snapshot).complete


def test_zero_clusters_that_are_holes_are_not_read(store):
    volume = store.create_volume("v", 12 * CLUSTER, thick=True)
    fill(volume, [3])
    snapshot = volume.snapshot("s")
    job = checksums.register(snapshot)
    finish(job)
    zeros = xxhash.xxh3_64_intdigest(bytes(CLUSTER))
    table = checksums.table(snapshot)
    assert [table.checksum(c) == zeros for c in range(12)] == [c != 3 for c in range(12)]
    assert job.bytes < 12 * CLUSTER


def test_a_backing_file_that_shrinks_is_an_error(store, snapshot):
    os.truncate(store.path, 2 * CLUSTER)
    job = checksums.register(snapshot)
    assert job.wait(10)
    assert (job.state, job.errno) == ("error", errno.EIO)
    assert "of lvol 's': Input/output error" in job.error
    assert "reading cluster" in job.error
    assert checksums.table(snapshot) is None
    assert snapshot.busy is None
    os.truncate(store.path, 400 * CLUSTER)


def test_a_job_waits_for_nothing_when_the_store_closes(store, snapshot):
    job = checksums.register(snapshot, rate=CLUSTER)
    begun = time.monotonic()
    store.close()
    assert time.monotonic() - begun < 5
    assert job.state == "cancelled"


def test_jobs_are_listed(store, snapshot):
    job = checksums.register(snapshot)
    finish(job)
    listed = registry(store).list()[-1].as_dict()
    assert listed["kind"] == "checksum"
    assert listed["lvol"] == "s"
    assert listed["state"] == "complete"
    assert listed["done_clusters"] == 4
