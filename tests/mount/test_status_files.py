"""MNT/.lvolfs."""

import json
import os
import time
from collections.abc import Callable

from tests.mount.conftest import MIB, Mounted, pattern, run


def test_documents(mounted: Mounted) -> None:
    (mounted.volumes / "v").write_bytes(pattern(2 * MIB))
    os.setxattr(mounted.volumes / "v", "user.lvolfs.snapshot", b"s")
    store = json.loads((mounted.status / "store.json").read_text())
    assert store["cluster_size"] == MIB
    assert store["total_clusters"] - store["free_clusters"] == 2
    assert store["mountpoint"] == str(mounted.path)
    lvols = json.loads((mounted.status / "lvols.json").read_text())
    assert [(lvol["name"], lvol["type"], lvol["parent"]) for lvol in lvols] == [
        ("s", "snapshot", None),
        ("v", "volume", "s"),
    ]
    assert json.loads((mounted.status / "jobs.json").read_text()) == []


def test_a_line_of_checksum_for_each_cluster(mounted: Mounted) -> None:
    file = mounted.volumes / "v"
    file.write_bytes(pattern(2 * MIB))
    os.truncate(file, 4 * MIB)
    os.setxattr(file, "user.lvolfs.snapshot", b"s")
    directory = mounted.status / "checksums"
    assert list(directory.iterdir()) == []
    os.setxattr(mounted.snapshots / "s", "user.lvolfs.checksum.register", b"")
    deadline = time.monotonic() + 10
    while not list(directory.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lines = [json.loads(line) for line in (directory / "s").read_text().splitlines()]
    assert [(line["index"], line["state"]) for line in lines] == [
        (0, "written"),
        (1, "written"),
        (2, "unwritten"),
        (3, "unwritten"),
    ]
    import xxhash

    for line in lines[:2]:
        cluster = pattern(2 * MIB)[line["index"] * MIB :][:MIB]
        assert line["checksum"] == f"{xxhash.xxh3_64_intdigest(cluster):016x}"
    assert lines[2]["checksum"] is None
    jobs = json.loads((mounted.status / "jobs.json").read_text())
    assert [(job["kind"], job["lvol"], job["state"]) for job in jobs] == [
        ("checksum", "s", "complete")
    ]


def test_metrics(mounted: Mounted) -> None:
    def value(name: str) -> float:
        for line in (mounted.status / "metrics").read_text().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return 0.0

    written = value("lvolfs_written_bytes_total")
    (mounted.volumes / "v").write_bytes(pattern(3 * MIB))
    (mounted.volumes / "v").read_bytes()
    assert value("lvolfs_written_bytes_total") - written == 3 * MIB
    assert value("lvolfs_read_bytes_total") == 3 * MIB
    assert value('lvolfs_store_clusters{state="used"}') == 3
    assert value('lvolfs_store_lvols{type="volume"}') == 1
    assert value('lvolfs_requests_total{op="write"}') >= 3


def test_ordinary_tools_read_them(mounted: Mounted) -> None:
    assert run("cat", mounted.status / "store.json").startswith("{")
    assert int(run("wc", "-c", mounted.status / "store.json").split()[0]) > 100
    assert "lvolfs_store_clusters" in run("grep", "clusters", mounted.status / "metrics")
    assert sorted(p.name for p in mounted.status.iterdir()) == [
        "checksums",
        "jobs.json",
        "lvols.json",
        "metrics",
        "store.json",
    ]


def test_longer_than_one_reply(make_mounted: Callable[..., Mounted]) -> None:
    """Replies through the lane's socket have at most 128 KiB."""
    mounted = make_mounted(size=1024 * MIB)
    for number in range(400):
        (mounted.volumes / f"volume-{number:03}").touch()
    text = (mounted.status / "lvols.json").read_text()
    assert len(text) > 128 * 1024
    assert len(json.loads(text)) == 400


def test_they_cannot_be_written(mounted: Mounted) -> None:
    for name in ("store.json", "metrics"):
        path = mounted.status / name
        try:
            descriptor = os.open(path, os.O_WRONLY)
        except PermissionError:
            continue
        os.close(descriptor)
        raise AssertionError(f"{name} was opened for writing")
