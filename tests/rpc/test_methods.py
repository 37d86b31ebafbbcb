"""SPDK's and Longhorn's calls on real stores: results, codes and messages as a target's."""

import base64
import errno
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs import Lvstore
from lvolfs._native.checksum import crc64
from lvolfs.rpc import methods
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.table import dispatch
from lvolfs.rpc.target import Target

assert methods

MIB = 1 << 20
Call = Any


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Lvstore]:
    with Lvstore.create(str(tmp_path / "s"), size=64 * MIB) as opened:
        yield opened


@pytest.fixture
def call(store: Lvstore) -> Call:
    target = Target([store])
    return lambda method, **params: dispatch(target, method, params or None)


@pytest.fixture
def refused(store: Lvstore) -> Call:
    target = Target([store])

    def run(method: str, **params: Any) -> tuple[int, str]:
        with pytest.raises(RpcError) as caught:
            dispatch(target, method, params or None)
        return caught.value.code, caught.value.message

    return run


@pytest.fixture
def written(call: Call, store: Lvstore) -> Lvstore:
    """vol of 10 clusters; snapshot snap owns 0, 2 and 9."""
    call("bdev_lvol_create", lvs_name="lvs0", lvol_name="vol", size_in_mib=10, thin_provision=True)
    for cluster in (0, 2, 9):
        store.get("vol").pwrite(bytes([cluster + 1]) * MIB, cluster * MIB)
    call("bdev_lvol_snapshot", lvol_name="lvs0/vol", snapshot_name="snap")
    return store


NO_DEVICE = (-19, "No such device")
DECODE = (-32603, "spdk_json_decode_object failed")


def test_lvstores(call: Call, refused: Call, store: Lvstore) -> None:
    (lvs,) = call("bdev_lvol_get_lvstores")
    assert lvs == {
        "uuid": store.uuid,
        "name": "lvs0",
        "base_bdev": store.path,
        "total_data_clusters": store.total_clusters,
        "free_clusters": store.free_clusters,
        "block_size": 4096,
        "cluster_size": MIB,
    }
    assert call("bdev_lvol_get_lvstores", lvs_name="lvs0") == [lvs]
    assert refused("bdev_lvol_get_lvstores", lvs_name="nope") == NO_DEVICE
    both = {"lvs_name": "lvs0", "uuid": store.uuid}
    assert refused("bdev_lvol_get_lvstores", **both) == (-22, "Invalid argument")
    gone = refused("bdev_lvol_rename_lvstore", old_name="nope", new_name="x")
    assert gone == (-2, "Lvol store nope not found")
    assert call("bdev_lvol_rename_lvstore", old_name="lvs0", new_name="x") is True
    assert call("bdev_lvol_get_lvstores")[0]["name"] == "x"


def test_create_and_list(call: Call, refused: Call, store: Lvstore) -> None:
    def create(**params: Any) -> dict[str, Any]:
        return {"lvs_name": "lvs0", "lvol_name": "v", "size_in_mib": 4} | params

    uuid = call("bdev_lvol_create", **create(thin_provision=True))
    (lvol,) = call("bdev_lvol_get_lvols")
    assert lvol.pop("creation_time").endswith("Z")
    assert lvol == {
        "alias": "lvs0/v",
        "uuid": uuid,
        "name": "v",
        "is_thin_provisioned": True,
        "is_snapshot": False,
        "is_clone": False,
        "is_esnap_clone": False,
        "is_degraded": False,
        "lvs": {"name": "lvs0", "uuid": store.uuid},
    }
    assert refused("bdev_lvol_create", **create()) == (-17, "File exists")
    assert refused("bdev_lvol_create", **create(lvs_name="no")) == NO_DEVICE
    assert refused("bdev_lvol_create", **create(lvol_name="")) == (-22, "Invalid argument")
    full = refused("bdev_lvol_create", **create(lvol_name="w", size_in_mib=4096))
    assert full == (-32602, "No space left on device")
    assert refused("bdev_lvol_create", **create(size_in_mib=-1)) == DECODE
    assert refused("bdev_lvol_create", **create(bogus=1)) == DECODE
    assert refused("bdev_lvol_create", lvs_name="lvs0", size_in_mib=1) == DECODE
    clear = refused("bdev_lvol_create", **create(clear_method="wat"))
    assert clear == (-22, "Invalid clean_method option")


def test_snapshots_and_clones(call: Call, refused: Call, written: Lvstore) -> None:
    taken = refused("bdev_lvol_snapshot", lvol_name="lvs0/vol", snapshot_name="snap")
    assert taken == (-32602, "File exists")
    of_snapshot = refused("bdev_lvol_snapshot", lvol_name="lvs0/snap", snapshot_name="x")
    assert of_snapshot == (-32602, "Invalid argument")
    missing = refused("bdev_lvol_snapshot", lvol_name="lvs0/no", snapshot_name="s")
    assert missing == NO_DEVICE
    assert refused("bdev_lvol_snapshot", lvol_name="vol", snapshot_name="s") == NO_DEVICE
    of_volume = refused("bdev_lvol_clone", snapshot_name="lvs0/vol", clone_name="c")
    assert of_volume == (-32602, "Invalid argument")
    call("bdev_lvol_clone", snapshot_name=written.get("snap").uuid, clone_name="c")
    two = refused("bdev_lvol_delete", name="lvs0/snap")
    assert two == (-32603, "Operation not permitted")
    assert call("bdev_lvol_delete", name="lvs0/c") is True
    assert call("bdev_lvol_delete", name="lvs0/snap") is True
    assert written.get("vol").num_allocated_clusters == 3
    assert refused("bdev_lvol_delete", name="lvs0/snap") == NO_DEVICE
    resized = refused("bdev_lvol_resize", name="lvs0/gone", size_in_mib=1)
    assert resized == NO_DEVICE


def test_a_snapshot_is_not_resized(refused: Call, written: Lvstore) -> None:
    outcome = refused("bdev_lvol_resize", name="lvs0/snap", size_in_mib=80)
    assert outcome == (-32602, "Operation not permitted")


def test_xattrs(call: Call, refused: Call, written: Lvstore) -> None:
    call(
        "bdev_lvol_snapshot",
        lvol_name="lvs0/vol",
        snapshot_name="s2",
        xattrs={"user_created": "true"},
    )
    assert call("bdev_lvol_get_xattr", name="lvs0/s2", xattr_name="user_created") == "true"
    missing = refused("bdev_lvol_get_xattr", name="lvs0/vol", xattr_name="user_created")
    assert missing == (-32603, "No such file or directory")
    assert call("bdev_lvol_set_xattr", name="lvs0/vol", xattr_name="foo", xattr_value="bar") is True
    assert call("bdev_lvol_get_xattr", name="lvs0/vol", xattr_name="foo") == "bar"
    on_snapshot = refused(
        "bdev_lvol_set_xattr", name="lvs0/snap", xattr_name="foo", xattr_value="bar"
    )
    assert on_snapshot == (-32602, "Operation not permitted")
    wrong = refused("bdev_lvol_snapshot", lvol_name="lvs0/vol", snapshot_name="s3", xattrs=[1])
    assert wrong == DECODE


def test_fragmap(call: Call, refused: Call, written: Lvstore) -> None:
    whole = call("bdev_lvol_get_fragmap", name="lvs0/snap")
    assert whole == {
        "cluster_size": MIB,
        "num_clusters": 10,
        "num_allocated_clusters": 3,
        "fragmap": base64.b64encode(bytes([0b101, 0b10])).decode(),
    }
    window = call("bdev_lvol_get_fragmap", name="lvs0/snap", offset=2 * MIB, size=3 * MIB)
    assert (window["num_clusters"], window["fragmap"]) == (3, "AQ==")
    for window in ({"offset": 1, "size": MIB}, {"offset": 0, "size": 11 * MIB}):
        outcome = refused("bdev_lvol_get_fragmap", name="lvs0/snap", **window)
        assert outcome == (-32602, "Invalid argument")


def test_checksums(call: Call, refused: Call, written: Lvstore) -> None:
    assert refused("bdev_lvol_get_snapshot_checksum", name="lvs0/snap") == NO_DEVICE
    of_volume = refused("bdev_lvol_register_snapshot_checksum", name="lvs0/vol")
    assert of_volume == (-32603, "Operation not permitted")
    idle = refused("bdev_lvol_stop_snapshot_checksum", name="lvs0/snap")
    assert idle == (-3, "No such device")
    assert call("bdev_lvol_register_snapshot_range_checksums", name="lvs0/snap") is True
    content = [bytes([cluster + 1]) * MIB for cluster in (0, 2, 9)]
    expected = crc64(b"".join(content))
    assert call("bdev_lvol_get_snapshot_checksum", name="lvs0/snap") == {"checksum": expected}
    ranges = call(
        "bdev_lvol_get_snapshot_range_checksums",
        name="lvs0/snap",
        cluster_start_index=1,
        cluster_count=2,
    )
    assert ranges == [
        {"cluster_index": 1, "checksum": 0},
        {"cluster_index": 2, "checksum": crc64(content[1])},
    ]
    with pytest.raises(RpcError):
        call(
            "bdev_lvol_get_snapshot_range_checksums",
            name="lvs0/snap",
            cluster_start_index=9,
            cluster_count=2,
        )


def _finish(call: Call, started: dict[str, int], check: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        state: dict[str, Any] = call(check, **started)
        if state["state"] != "in progress":
            return state
        time.sleep(0.01)
    raise AssertionError(state)


def test_copies(call: Call, refused: Call, written: Lvstore) -> None:
    call("bdev_lvol_create", lvs_name="lvs0", lvol_name="to", size_in_mib=10, thin_provision=True)
    names = {"src_lvol_name": "lvs0/snap", "dst_bdev_name": "lvs0/to"}
    check = "bdev_lvol_check_shallow_copy"
    started = call("bdev_lvol_start_shallow_copy", **names)
    assert _finish(call, started, check) == {
        "copied_clusters": 3,
        "unmapped_clusters": 0,
        "total_clusters": 3,
        "state": "complete",
    }
    assert refused(check, **started) == NO_DEVICE
    started = call("bdev_lvol_start_range_shallow_copy", **names, clusters=[2, 1])
    done = _finish(call, started, check)
    assert (done["copied_clusters"], done["unmapped_clusters"]) == (1, 1)
    empty = refused("bdev_lvol_start_range_shallow_copy", **names, clusters=[])
    assert empty == (-32602, "Invalid argument")
    done = _finish(call, call("bdev_lvol_start_deep_copy", **names), "bdev_lvol_check_deep_copy")
    assert done == {"processed_clusters": 10, "total_clusters": 10, "state": "complete"}
    assert refused(check, operation_id=999) == NO_DEVICE
    assert refused(check, operation_id="a") == DECODE


def test_what_spdk_refuses_at_the_check(call: Call, refused: Call, written: Lvstore) -> None:
    call("bdev_lvol_create", lvs_name="lvs0", lvol_name="to", size_in_mib=10, thin_provision=True)
    call("bdev_lvol_create", lvs_name="lvs0", lvol_name="small", size_in_mib=2)
    start, check = "bdev_lvol_start_shallow_copy", "bdev_lvol_check_shallow_copy"
    writable = call(start, src_lvol_name="lvs0/vol", dst_bdev_name="lvs0/to")
    state = call(check, **writable)
    assert (state["state"], state["error"]) == ("error", "Operation not permitted")
    small = call(start, src_lvol_name="lvs0/snap", dst_bdev_name="lvs0/small")
    state = call(check, **small)
    assert (state["state"], state["error"]) == ("error", "Invalid argument")
    no_source = refused(start, src_lvol_name="lvs0/no", dst_bdev_name="lvs0/to")
    assert no_source == NO_DEVICE
    no_destination = refused(start, src_lvol_name="lvs0/snap", dst_bdev_name="lvs0/no")
    assert no_destination == (-32602, "No such device")
    with written.get("to").open(write=True):
        held = refused(start, src_lvol_name="lvs0/snap", dst_bdev_name="lvs0/to")
    assert held == (-32602, "Operation not permitted")


def test_parents(call: Call, refused: Call, written: Lvstore) -> None:
    call("bdev_lvol_create", lvs_name="lvs0", lvol_name="v", size_in_mib=10, thin_provision=True)
    assert call("bdev_lvol_set_parent", lvol_name="lvs0/v", parent_name="lvs0/snap") is True
    on_volume = refused("bdev_lvol_set_parent", lvol_name="lvs0/v", parent_name="lvs0/vol")
    assert on_volume == (-32602, "Invalid argument")
    again = refused("bdev_lvol_set_parent", lvol_name="lvs0/v", parent_name="lvs0/snap")
    assert again == (-32602, "File exists")
    assert call("bdev_lvol_detach_parent", name="lvs0/v") is True
    assert refused("bdev_lvol_detach_parent", name="lvs0/v") == (-32602, "Invalid argument")
    call("bdev_lvol_clone", snapshot_name="lvs0/snap", clone_name="c")
    assert call("bdev_lvol_decouple_parent", name="lvs0/c") is True
    assert call("bdev_lvol_inflate", name="lvs0/v") is True
    taken = refused("bdev_lvol_rename", old_name="lvs0/v", new_name="vol")
    assert taken == (-32602, "File exists")


def test_every_own_method_refuses_an_unknown_lvol(call: Call, store: Lvstore) -> None:
    with pytest.raises(RpcError, match="there is no lvol 'lvs0/x'") as caught:
        call("lvolfs_get_lvol", name="lvs0/x")
    assert caught.value.code == -19
    with pytest.raises(RpcError, match="has no job 7"):
        call("lvolfs_get_job", id=7)


SNAPSHOT = {"lvol_name": "lvs0/v", "snapshot_name": "n"}


@pytest.mark.parametrize("half", [chr(0xD800), chr(0xDC7F), f"a{chr(0xDFFF)}b"])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("bdev_lvol_set_xattr", {"name": "lvs0/v", "xattr_name": "{}", "xattr_value": "x"}),
        ("bdev_lvol_set_xattr", {"name": "lvs0/v", "xattr_name": "x", "xattr_value": "{}"}),
        ("bdev_lvol_snapshot", {"lvol_name": "lvs0/v", "snapshot_name": "{}"}),
        (
            "bdev_lvol_snapshot",
            {"lvol_name": "lvs0/v", "snapshot_name": "n", "xattrs": {"{}": "x"}},
        ),
        (
            "bdev_lvol_snapshot",
            {"lvol_name": "lvs0/v", "snapshot_name": "n", "xattrs": {"x": "{}"}},
        ),
        ("lvolfs_set_xattr", {"name": "lvs0/v", "xattr_name": "{}", "value": "AAAA"}),
    ],
)
def test_half_a_character_is_no_text(
    store: Lvstore, method: str, params: dict[str, Any], half: str
) -> None:
    """JSON can write it, UTF-8 cannot."""
    store.create_volume("v", MIB)
    told = json.loads(json.dumps(params).replace("{}", json.dumps(half)[1:-1]))
    with pytest.raises(RpcError) as caught:
        dispatch(Target([store]), method, told)
    assert "is not valid UTF-8" in str(caught.value.detail)
    assert [lvol.name for lvol in store.lvols] == ["v"]
    with pytest.raises(OSError, match="has no xattr"):
        store.get("v").get_xattr("x")


def test_a_byte_of_a_file_name_is_no_text_where_text_is_needed(store: Lvstore) -> None:
    """Such stand-ins for bytes are understood in paths."""
    store.create_volume("v", MIB)
    with pytest.raises(RpcError) as caught:
        dispatch(
            Target([store]),
            "bdev_lvol_set_xattr",
            {"name": "lvs0/v", "xattr_name": "x", "xattr_value": "\udcff"},
        )
    assert "is not valid UTF-8" in str(caught.value.detail)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("lvolfs_check", {"path": "/a\0b"}),
        ("lvolfs_rebuild", {"source": "lvs0/v", "volume": "v", "path": "/a\0b"}),
        ("lvolfs_create_external_clone", {"name": "c", "path": "/a\0b"}),
        ("lvolfs_set_external_parent", {"name": "lvs0/v", "path": "/a\0b"}),
        ("lvolfs_repair_clusters", {"name": "lvs0/v", "clusters": [[0, 1]], "source": "/a\0b"}),
        ("bdev_aio_create", {"name": "b", "filename": "/a\0b", "block_size": 512}),
        ("bdev_lvol_set_xattr", {"name": "lvs0/v", "xattr_name": "x", "xattr_value": "/a\0b"}),
    ],
)
def test_a_nul_in_a_string(store: Lvstore, method: str, params: dict[str, Any]) -> None:
    store.create_volume("v", MIB)
    with pytest.raises(RpcError) as caught:
        dispatch(Target([store]), method, params)
    assert caught.value.number == errno.EINVAL
    assert r"'/a\x00b' has a NUL character in it" in str(caught.value.detail)


def test_memory_that_becomes_no_device_is_given_back(store: Lvstore) -> None:
    target = Target([store])
    before = sorted(Path("/proc/self/fd").iterdir())
    for uuid in ("no-uuid", "1"):
        with pytest.raises(RpcError, match="is no uuid"):
            dispatch(
                target, "bdev_malloc_create", {"num_blocks": 8, "block_size": 512, "uuid": uuid}
            )
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_no_thread_for_a_signal_to_come(store: Lvstore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RpcError, match="no further thread") as caught:
        dispatch(Target([store]), "spdk_kill_instance", {"sig_name": "SIGTERM"})
    assert caught.value.number == errno.ENOMEM
