"""check --repair and scrub --repair-from: what they change, what they leave, what they say."""

import contextlib
import errno
import hashlib
from pathlib import Path

import pytest

from lvolfs import Lvstore
from lvolfs.blobstore.metadata_page import root_index
from lvolfs.cli.opening import open_target
from lvolfs.rpc.errors import RpcError
from tests.cli.conftest import MIB, Run, write


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def cluster_offset(path: Path, name: str, cluster: int) -> int:
    with Lvstore.open(str(path), read_only=True) as opened:
        own = memoryview(opened.get(name).blob.clusters()).cast("I")
    assert own[cluster]
    return own[cluster] * MIB


def page_offset(path: Path, name: str) -> int:
    """Of an lvol's first metadata page."""
    with Lvstore.open(str(path), read_only=True) as opened:
        superblock = opened._superblock
        index = root_index(opened.get(name).id)
        return (superblock.md_start + index) * superblock.page_size


def mark_unclean(path: Path) -> None:
    """As a crash leaves it: a change, and no close."""
    opened = Lvstore.open(str(path))
    opened.create_volume("late", MIB)
    opened.engine.close()
    opened._device.close()
    opened._closed = True


# -- check --repair


def test_nothing_is_written_without_repair(store: Path, run: Run) -> None:
    mark_unclean(store)
    flip(store, page_offset(store, "monday") + 2000)
    before = digest(store)
    assert run("check", store, "--json", expect=3).json["repairs"] == []
    assert digest(store) == before


def test_a_consistent_store_is_left_as_it_is(store: Path, run: Run) -> None:
    before = digest(store)
    result = run("check", store, "--repair", "--json").json
    assert (result["consistent"], result["repaired"], result["repairs"]) == (True, False, [])
    assert digest(store) == before


def test_a_store_that_was_not_closed_is_closed(store: Path, run: Run) -> None:
    mark_unclean(store)
    assert "not closed cleanly" in run("check", store).out
    done = run("check", store, "--repair")
    assert "repaired: superblock: marked as closed cleanly" in done.out
    assert run("check", store, "--json").json["findings"] == []
    assert run("ls", store).out.count("late") == 1


@pytest.mark.parametrize("mask", [1, 2, 3])
def test_masks_are_written_anew(store: Path, run: Run, mask: int) -> None:
    flip(store, mask * 4096 + 5)
    assert run("check", store, expect=3).out.startswith("warning: masks")
    result = run("check", store, "--repair", "--json").json
    assert {"object": "masks", "text": "written anew"} in result["repairs"]
    assert run("check", store, "--json").json["findings"] == []


def test_intact_lvols_are_salvaged_from_a_store_with_a_damaged_one(store: Path, run: Run) -> None:
    """The damaged one is named and kept, the others are whole, and new ones do not touch it."""
    run("volume", "create", store, "other", "--size", "4M")
    write(store, "other", {2: b"o"})
    first_page = page_offset(store, "disk")
    data = cluster_offset(store, "monday", 5)
    flip(store, first_page + 2000)
    said = run("check", store, "--repair", expect=3).out
    assert "error: " in said
    assert "wrong checksum" in said
    with Lvstore.open(str(store)) as opened:
        assert [lvol.name for lvol in opened.lvols] == ["monday", "other"]
        assert opened.get("other").pread(MIB, 2 * MIB) == b"o" * MIB
        assert opened.get("monday").pread(MIB, 5 * MIB) == b"c" * MIB
        opened.create_volume("new", 8 * MIB).pwrite(b"n" * 8 * MIB, 0)
    assert store.read_bytes()[data : data + MIB] == b"c" * MIB
    # whoever has the right byte gets the lvol back
    flip(store, first_page + 2000)
    run("check", store, "--repair")
    with Lvstore.open(str(store)) as opened:
        assert opened.get("disk").pread(MIB, 5 * MIB) == b"c" * MIB


def test_damaged_lvols_are_removed_only_when_told_to(store: Path, run: Run) -> None:
    run("volume", "create", store, "other", "--size", "4M")
    write(store, "other", {2: b"o"})
    free = run("info", store, "--json").json["free_clusters"]
    flip(store, page_offset(store, "monday") + 2000)
    assert "--repair" in run("check", store, "--remove-damaged", expect=2).err
    result = run("check", store, "--repair", "--remove-damaged", "--json").json
    removed = [each["object"] for each in result["repairs"] if "removed" in each["text"]]
    assert len(removed) == 2  # monday, and disk, which shows it
    assert any("disk" in each for each in removed)
    assert result["consistent"]
    with Lvstore.open(str(store)) as opened:
        assert [lvol.name for lvol in opened.lvols] == ["other"]
        assert opened.damaged == []
        assert opened.free_clusters == free + 3
        assert opened.get("other").pread(MIB, 2 * MIB) == b"o" * MIB
        opened.create_volume("disk", 8 * MIB)
    assert run("check", store, "--json").json["findings"] == []


def test_unreadable_checksums_are_dropped(store: Path, run: Run) -> None:
    run("checksum", "register", store, "monday")
    with Lvstore.open(str(store)) as opened:
        monday = opened.get("monday")
        name = next(n for n in monday.metadata.xattrs if n.startswith("lvolfs.xxh3."))
        value = monday.metadata.xattrs[name]
        monday.set_reserved_xattrs({name: value[:-1] + bytes([value[-1] ^ 1])})
    said = run("check", store, expect=3).out
    assert "xxh3 checksums cannot be used" in said
    assert "dropped its xxh3 checksums" in run("check", store, "--repair").out
    assert run("check", store, "--json").json["findings"] == []
    run("checksum", "register", store, "monday")
    run("checksum", "verify", store, "monday")


def test_what_has_no_superblock_is_not_touched(store: Path, run: Run) -> None:
    flip(store, 0)
    before = digest(store)
    assert "error: superblock" in run("check", store, "--repair", expect=3).out
    assert digest(store) == before


# -- scrub --repair-from


@pytest.fixture
def replica(store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "replica.img"
    path.write_bytes(store.read_bytes())
    return path


@pytest.mark.parametrize("algorithm", ["xxh3", "crc64"])
def test_bit_rot_is_repaired_from_a_replica(
    store: Path, replica: Path, run: Run, algorithm: str
) -> None:
    run("checksum", "register", store, "monday", "--algorithm", algorithm)
    whole = digest(store)
    for cluster, at in ((0, 0), (5, MIB - 1)):
        flip(store, cluster_offset(store, "monday", cluster) + at)
    assert run("scrub", store, "--json", expect=3).json["snapshots"][0]["mismatched"] == [
        [0, 1],
        [5, 1],
    ]
    result = run("scrub", store, "--repair-from", replica, "--json").json["snapshots"][0]
    assert (result["repaired"], result["refused"]) == ([[0, 1], [5, 1]], [])
    assert "as registered" in run("scrub", store).out
    assert digest(store) == whole


def test_a_replica_that_is_wrong_itself_is_refused(store: Path, replica: Path, run: Run) -> None:
    run("checksum", "register", store, "monday")
    flip(store, cluster_offset(store, "monday", 0) + 5)
    flip(store, cluster_offset(store, "monday", 1) + 5)
    flip(replica, cluster_offset(replica, "monday", 1) + 9)
    before = cluster_offset(store, "monday", 1)
    wrong = store.read_bytes()[before : before + MIB]
    done = run("scrub", store, "--repair-from", replica, expect=3)
    assert "repaired: clusters 0" in done.out
    assert "not repaired: clusters 1" in done.out
    assert store.read_bytes()[before : before + MIB] == wrong


def test_a_replica_without_the_snapshot(store: Path, tmp_path: Path, run: Run) -> None:
    empty = tmp_path / "empty.img"
    run("create", empty, "--size", "64M")
    run("checksum", "register", store, "monday")
    flip(store, cluster_offset(store, "monday", 0))
    done = run("scrub", store, "--repair-from", empty, expect=3)
    assert f"monday: not repaired: {empty}: no lvol 'monday'" in done.out


@pytest.mark.parametrize(
    ("clusters", "number"),
    [
        ([[0, 1 << 60]], errno.EINVAL),
        ([[8, 1]], errno.ERANGE),
        ([[2, 1]], errno.ENODATA),
        ([[0, 2]], errno.EINVAL),
    ],
)
def test_what_cannot_be_repaired(
    store: Path, tmp_path: Path, run: Run, clusters: list[list[int]], number: int
) -> None:
    """Too many, past the end, not owned, a source of the wrong size: nothing is written."""
    run("checksum", "register", store, "monday")
    source = tmp_path / "source"
    source.write_bytes(b"a" * MIB)
    before = digest(store)
    with open_target(str(store), write=True) as session, pytest.raises(RpcError) as info:
        session.call(
            "lvolfs_repair_clusters", name="lvs0/monday", clusters=clusters, source=str(source)
        )
    assert info.value.number == number
    assert digest(store) == before


def test_a_source_that_is_not_an_absolute_path(
    store: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be looked for in whatever directory the daemon works in."""
    run("checksum", "register", store, "monday")
    (tmp_path / "source").write_bytes(b"a" * MIB)
    monkeypatch.chdir(tmp_path)
    with (
        open_target(str(store), write=True) as session,
        pytest.raises(RpcError, match="not an absolute path") as info,
    ):
        session.call(
            "lvolfs_repair_clusters", name="lvs0/monday", clusters=[[0, 1]], source="source"
        )
    assert info.value.number == errno.EINVAL


def test_tables_of_an_lvol_of_a_newer_format_stay(store: Path, run: Run) -> None:
    """It may only be read: the repair says so again instead of failing, and does the rest."""
    from image_editor import ImageEditor

    run("checksum", "register", store, "monday")
    image = ImageEditor(str(store))
    chain = image.lvols["monday"].chain
    table = b"lvolfs.xxh3"
    for page in chain:
        content = image.read(image.page_offset(page), 4096)
        at = content.find(table)
        if at > 0 and content[at + len(table)] != ord("."):
            image.edit_page(page, at + len(table), b"\xff\xff")
    image.edit_page(chain[0], image.find(chain[0], b"\x03\x18\0\0\0") + 13, b"\x81")
    image.mark_unclean()
    done = run("check", store, "--repair", expect=3)
    assert "superblock: marked as closed cleanly" in done.out
    assert "lvol 'monday': its xxh3 checksums cannot be used" in done.out


def test_a_mounted_store_is_repaired_under_its_readers(
    store: Path, replica: Path, run: Run, mount: "object"
) -> None:
    run("checksum", "register", store, "monday")
    flip(store, cluster_offset(store, "monday", 5) + 77)
    here, there = mount(store), mount(replica)  # type: ignore[operator]
    with (here / "snapshots/monday").open("rb") as file:
        file.seek(5 * MIB)
        assert file.read(MIB) != b"c" * MIB
        assert "repaired: clusters 5" in run("scrub", here, "--repair-from", there).out
        file.seek(5 * MIB)
        assert file.read(MIB) == b"c" * MIB
    assert (here / "volumes/disk").read_bytes()[5 * MIB : 6 * MIB] == b"c" * MIB
    run("scrub", here)


# -- operations that were cut short


@pytest.mark.parametrize("deletion", [False, True])
def test_interrupted_snapshot_operations_are_finished_or_undone(
    store: Path, run: Run, monkeypatch: pytest.MonkeyPatch, *, deletion: bool
) -> None:
    """Cut at each write; at least one place leaves a snapshot that is neither there nor not."""
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    write(store, "disk", {2: b"d"})
    pristine = store.read_bytes()
    said: list[str] = []
    for skip in range(30):
        store.write_bytes(pristine)
        opened = Lvstore.open(str(store))
        opened.engine.device.plant_fault("write", errno.EIO, skip=skip)
        with contextlib.suppress(OSError):
            if deletion:
                opened.get("monday").delete()
            else:
                opened.get("disk").snapshot("tuesday")
        cut = opened.engine.device.injected_faults > 0
        with contextlib.suppress(OSError):
            opened.close()
        if not cut:
            break
        found = run("check", store, "--json", expect=None)
        interrupted = [each for each in found.json["findings"] if "interrupted" in each["text"]]
        assert found.status == (3 if interrupted else 0)
        repaired = run("check", store, "--repair", "--json").json
        assert [each["text"] for each in repaired["findings"]] == []
        repairs = [each["text"] for each in repaired["repairs"] if "interrupted" in each["text"]]
        assert bool(repairs) == bool(interrupted)
        said += repairs
        with Lvstore.open(str(store), read_only=True) as again:
            disk = again.get("disk")
            for cluster, byte in ((0, b"a"), (2, b"d"), (5, b"c")):
                assert disk.pread(MIB, cluster * MIB) == byte * MIB
    else:
        pytest.fail("it never got through")
    kind = "deletion" if deletion else "creation"
    assert any(text.endswith(f"its {kind} was interrupted") for text in said), said
