"""Requests as they were sent to Longhorn's SPDK are answered as it answered them.

Compared are whole replies. What a run makes up itself (uuids, times, checksums of the data
that the tests write, operation ids) must correspond one to one. What is left out is
what differs_on_purpose tells.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvolfs.rpc.target import Target
from tests.rpc.target_process import RawClient, serving

RECORDED = Path(__file__).parent / "recorded"
MIB = 1 << 20
SIZES = {
    "d4k.img": 1024 * MIB,
    "d512.img": 1024 * MIB,
    "dst.img": 64 * MIB,
    "dst512.img": 64 * MIB,
    "small.img": 8 * MIB,
    "e.img": 64 * MIB,
    "ext.img": 8 * MIB,
}
UUID = re.compile(r"^[0-9a-f]{7,8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
CHECKSUM_OF_ZEROS = 13009959473850217398
EMPTY = 0


def load(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]


def differs_on_purpose(request: Any) -> bool:
    """The table in docs/rpc.md gives the reasons."""
    if not isinstance(request, dict):
        return False
    params = request.get("params") or {}
    if request["method"] in (
        "bdev_lvol_register_snapshot_range_checksums",
        "bdev_lvol_get_snapshot_range_checksums",
        "bdev_lvol_stop_snapshot_checksum",
        "bdev_lvol_start_range_shallow_copy",
        "bdev_lvol_start_deep_copy",
    ):
        return True  # that SPDK did not have them yet
    if request["method"] == "spdk_get_version":
        return isinstance(params, dict) and not params and request.get("jsonrpc") == "2.0"
    if not isinstance(params, dict):
        return False
    # Bytes that are no text, of which SPDK gave the first; a name that upstream's SPDK refuses.
    return params.get("xattr_name") == "checksum" or len(params.get("lvs_name", "")) == 255


class Comparison:
    """One-to-one correspondences between what was recorded and what is answered now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours: dict[Any, Any] = {}
        self.theirs: dict[Any, Any] = {}

    def pair(self, recorded: Any, answered: Any) -> bool:
        return (
            self.ours.setdefault(recorded, answered) == answered
            and self.theirs.setdefault(answered, recorded) == recorded
        )

    def translate(self, recorded: Any) -> Any:
        """A recorded request with our paths, uuids and operation ids."""
        if isinstance(recorded, dict):
            return {
                key: self.ours.get(("operation", value), ("", value))[1]
                if key == "operation_id" and isinstance(value, int)
                else self.translate(value)
                for key, value in recorded.items()
            }
        if isinstance(recorded, list):
            return [self.translate(value) for value in recorded]
        if isinstance(recorded, str):
            if recorded.startswith("/disks/"):
                return str(self.folder / recorded.removeprefix("/disks/"))
            return self.ours.get(recorded, recorded)
        return recorded

    def same(self, recorded: Any, answered: Any, key: str = "") -> bool:
        if isinstance(recorded, dict) and isinstance(answered, dict):
            extra = set(answered) - set(recorded)
            allowed = {"data"} if "code" in recorded else set()
            if "copied_clusters" in recorded:
                allowed = {"unmapped_clusters"}
            if recorded.get("alias") == "lvs1m/clone1" and not recorded["is_clone"]:
                # By then it was set read-only, and such an lvol counts as a snapshot here.
                recorded = {**recorded, "is_snapshot": True}
            return extra <= allowed and all(
                name in answered and self.same(value, answered[name], name)
                for name, value in recorded.items()
            )
        if isinstance(recorded, list) and isinstance(answered, list):
            return len(recorded) == len(answered) and all(
                self.same(one, other) for one, other in zip(recorded, answered, strict=True)
            )
        if type(recorded) is not type(answered):
            return False
        if key == "operation_id":
            return self.pair(("operation", recorded), ("operation", answered))
        if key == "checksum" and recorded not in (CHECKSUM_OF_ZEROS, EMPTY):
            return self.pair(recorded, answered)
        if isinstance(recorded, str):
            if UUID.match(recorded):
                return bool(UUID.match(answered)) and self.pair(recorded, answered)
            if TIME.match(recorded) and key in ("creation_time", "result"):
                return bool(TIME.match(answered))
            return bool(self.translate(recorded) == answered)
        return bool(recorded == answered)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RawClient, Target]]:
    with serving(str(tmp_path / "rpc.sock")) as target:
        client = RawClient(str(tmp_path / "rpc.sock"))
        yield client, target
        client.close()


def until_ended(client: RawClient, request: dict[str, Any]) -> Any:
    deadline = time.monotonic() + 20
    while True:
        reply = client.exchange(request)
        result = reply.get("result")
        in_progress = isinstance(result, dict) and result.get("state") == "in progress"
        if not in_progress or time.monotonic() > deadline:
            return reply
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["lifecycle", "checksums"])
def test_recorded_exchanges(name: str, served: tuple[RawClient, Target], tmp_path: Path) -> None:
    client, target = served
    for file, size in SIZES.items():
        with (tmp_path / file).open("wb") as image:
            image.truncate(size)
    comparison = Comparison(tmp_path)
    compared = 0
    wrong = []
    for entry in load(name):
        if "write" in entry:
            write = entry["write"]
            data = bytes([write["byte"]]) * write["length"]
            target.find_lvol(write["lvol"]).pwrite(data, write["offset"])
            continue
        if differs_on_purpose(entry["request"]):
            continue
        request = comparison.translate(entry["request"])
        reply = until_ended(client, request)
        if not comparison.same(entry["reply"], reply):
            wrong.append({"request": request, "recorded": entry["reply"], "answered": reply})
        compared += 1
    assert not wrong, "\n".join(json.dumps(each) for each in wrong)
    assert compared > (130 if name == "lifecycle" else 35)
