"""The six steps that prove a delta copy, once by xattrs and once by ioctls.

Create a volume and write part of it; snapshot it and register its checksums; create the
destination and write all of it; copy by range; snapshot the destination; compare. Everything
that lvolfs claims is computed here a second time from the bytes.
"""

import errno
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import xxhash
from stage import DemoFailedError, check

from lvolfs import ioctls

CLUSTER = 1 << 20
CLUSTERS = 16
WRITTEN = (0, 1, 2, 5, 9, 15)
TIMEOUT = 60.0


class Way(Protocol):
    """How a step is asked for."""

    def snapshot(self, volume: Path, name: str) -> None: ...
    def register(self, snapshot: Path) -> None: ...
    def checksum(self, snapshot: Path) -> int: ...
    def clusters(self, snapshot: Path) -> list[int | None]:
        """The checksum of each cluster; None for one that was never written."""

    def copy(self, snapshot: Path, destination: str) -> tuple[int, int]:
        """Copies every cluster by range: (copied, unmapped)."""


def _get(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.lvolfs.{name}").decode()


def _set(path: Path, name: str, value: str) -> None:
    os.setxattr(path, f"user.lvolfs.{name}", value.encode())


def _wait(what: str, ended: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not ended():
        if time.monotonic() > deadline:
            raise DemoFailedError(f"{what} has not ended after {TIMEOUT:.0f} s")
        time.sleep(0.01)


class ByXattrs:
    """setfattr and getfattr would do the same."""

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint

    def snapshot(self, volume: Path, name: str) -> None:
        _set(volume, "snapshot", name)

    def register(self, snapshot: Path) -> None:
        _set(snapshot, "checksum.register", "")
        _wait("the registration", lambda: _get(snapshot, "checksum.state") != "in progress")
        check(_get(snapshot, "checksum.state") == "complete", "registration complete")

    def checksum(self, snapshot: Path) -> int:
        return int(_get(snapshot, "checksum"), 16)

    def clusters(self, snapshot: Path) -> list[int | None]:
        listed = (self._mountpoint / ".lvolfs/checksums" / snapshot.name).read_text()
        rows = [json.loads(line) for line in listed.splitlines()]
        check([row["index"] for row in rows] == list(range(CLUSTERS)), "a line for every cluster")
        return [int(row["checksum"], 16) if row["state"] == "written" else None for row in rows]

    def copy(self, snapshot: Path, destination: str) -> tuple[int, int]:
        _set(snapshot, "copy.start", f"{destination} 0-{CLUSTERS - 1}")
        _wait("the copy", lambda: _get(snapshot, "copy.state") != "in progress")
        check(_get(snapshot, "copy.state") == "complete", "copy complete")
        jobs = json.loads((self._mountpoint / ".lvolfs/jobs.json").read_text())
        listed = jobs["jobs"] if isinstance(jobs, dict) else jobs
        job = max((job for job in listed if job["kind"] == "copy"), key=lambda job: int(job["id"]))
        return job["copied_clusters"], job["unmapped_clusters"]


class ByIoctls:
    """As a C program with lvolfs.h would."""

    def snapshot(self, volume: Path, name: str) -> None:
        with volume.open("rb") as file:
            ioctls.call(file, ioctls.Snapshot(name=name.encode()))

    def register(self, snapshot: Path) -> None:
        with snapshot.open("rb") as file:
            ioctls.call(file, ioctls.ChecksumRegister(algorithm=ioctls.XXH3))
            status = ioctls.ChecksumStatus

            def ended() -> bool:
                return ioctls.call(file, status()).state != ioctls.STATE_IN_PROGRESS

            _wait("the registration", ended)
            last = ioctls.call(file, status())
            check(last.state == ioctls.STATE_COMPLETE, "registration complete")
            check(last.done == last.total == len(WRITTEN), f"{last.done} clusters hashed")

    def checksum(self, snapshot: Path) -> int:
        with snapshot.open("rb") as file:
            return ioctls.call(file, ioctls.ChecksumGet()).checksum

    def clusters(self, snapshot: Path) -> list[int | None]:
        with snapshot.open("rb") as file:
            found = ioctls.call(file, ioctls.ChecksumRange(start=0, count=CLUSTERS))
            bits = ioctls.call(file, ioctls.Fragmap(start=0, count=CLUSTERS)).bits
        written = [found.state[c] == ioctls.CLUSTER_WRITTEN for c in range(CLUSTERS)]
        owned = [bool(bits[c // 8] >> c % 8 & 1) for c in range(CLUSTERS)]
        check(written == owned, "cluster states and fragmap agree")
        return [found.checksum[c] if written[c] else None for c in range(CLUSTERS)]

    def copy(self, snapshot: Path, destination: str) -> tuple[int, int]:
        request = ioctls.CopyStart(destination=destination.encode(), num_clusters=CLUSTERS)
        for cluster in range(CLUSTERS):
            request.clusters[cluster] = cluster
        with snapshot.open("rb") as file:
            number = ioctls.call(file, request).id

            def status() -> ioctls.CopyStatus:
                return ioctls.call(file, ioctls.CopyStatus(id=number))

            _wait("the copy", lambda: status().state != ioctls.STATE_IN_PROGRESS)
            last = status()
        check(last.state == ioctls.STATE_COMPLETE, "copy complete")
        return last.copied, last.unmapped


def _write(volume: Path, clusters: tuple[int, ...] | range, seed: int) -> None:
    draw = random.Random(seed)
    with volume.open("wb") as file:
        file.truncate(CLUSTERS * CLUSTER)
        for cluster in clusters:
            file.seek(cluster * CLUSTER)
            file.write(draw.randbytes(CLUSTER))
        file.flush()
        os.fsync(file.fileno())


def _digests(content: bytes) -> list[int | None]:
    return [
        xxhash.xxh3_64_intdigest(content[c * CLUSTER : (c + 1) * CLUSTER]) if c in WRITTEN else None
        for c in range(CLUSTERS)
    ]


def six_steps(mountpoint: Path, way: Way, prefix: str) -> None:
    """Plays the six steps; raises DemoFailedError at the first value that is wrong."""
    volumes, snapshots = mountpoint / "volumes", mountpoint / "snapshots"
    source, destination = volumes / f"{prefix}-source", volumes / f"{prefix}-copy"

    _write(source, WRITTEN, seed=1)
    owned = source.stat().st_blocks * 512
    check(owned == len(WRITTEN) * CLUSTER, f"1 source owns {len(WRITTEN)} of {CLUSTERS} clusters")

    snapshot = snapshots / f"{prefix}-source-1"
    way.snapshot(source, snapshot.name)
    way.register(snapshot)
    content = snapshot.read_bytes()
    expected = _digests(content)
    check(way.clusters(snapshot) == expected, "2 every checksum is that of its bytes")

    _write(destination, range(CLUSTERS), seed=2)
    check(destination.read_bytes() != content, "3 destination is full of other data")

    with destination.open("r+b"):
        try:
            way.copy(snapshot, destination.name)
        except OSError as error:
            check(error.errno == errno.EBUSY, "4 a destination still open is refused: busy")
        else:
            raise DemoFailedError("a destination that is open for writing was copied over")
    copied, unmapped = way.copy(snapshot, destination.name)
    check(
        (copied, unmapped) == (len(WRITTEN), CLUSTERS - len(WRITTEN)),
        f"4 range copy: {copied} clusters copied, {unmapped} unmapped",
    )

    again = snapshots / f"{prefix}-copy-1"
    way.snapshot(destination, again.name)
    way.register(again)
    check(way.clusters(again) == expected, "5 the copy's checksums are the source's")

    check(again.read_bytes() == content, "6 the data are equal")
    check(
        way.checksum(again) == way.checksum(snapshot),
        f"6 snapshot checksums are equal: {way.checksum(snapshot):016x}",
    )
    try:
        with snapshot.open("r+b"):
            raise DemoFailedError("a snapshot could be opened for writing")
    except OSError as error:
        check(error.errno in (errno.EROFS, errno.EACCES), "a snapshot cannot be written")
