"""`make demo`: a replica rebuilt in full, then by delta, on real files; every value checked."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import filesystem
from stage import DemoFailedError, Stage, check, lvolfs, run, say, title
from verification import ByIoctls, ByXattrs, six_steps

VOLUME_SIZE = 1 << 30
STORE_SIZE = "4G"
NEEDED_BYTES = 6 << 30


def mib(size: float) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def rebuild(source: Path, destination: Path, label: str) -> tuple[dict[str, Any], float]:
    """Runs `lvolfs rebuild` and says what it did."""
    start = time.monotonic()
    report = lvolfs("rebuild", f"{source}:disk", f"{destination}:disk")
    seconds = time.monotonic() - start
    for layer in report["layers"]:
        say(
            f"  {layer['kind']:8} {layer['name']:8} {layer['action']:6} "
            f"owned {layer['owned']:4}  differing {layer['differing']:4}  "
            f"copied {layer['copied']:4}  unmapped {layer['unmapped']:4}  {layer['seconds']:.2f} s"
        )
    totals = report["totals"]
    say(f"  {label}: {mib(totals['bytes_moved'])} moved in {seconds:.2f} s")
    return report, seconds


def same_snapshots(source: Path, destination: Path, names: list[str]) -> None:
    """Registered checksums of both sides, compared."""
    for name in names:
        sums = []
        for target in (source, destination):
            found = lvolfs("checksum", "show", target, name)
            if found["checksum"] is None:
                raise DemoFailedError(f"snapshot {name} of {target} has no checksum")
            sums.append(found["checksum"])
        check(sums[0] == sums[1], f"snapshot {name}: checksum {sums[0]} on both sides")


def rot(store: Path, snapshot: str) -> None:
    """Flips one bit of the first cluster that a snapshot owns, behind the store's back."""
    document = lvolfs("map", store)
    owner = document["owners"].index(snapshot)
    first = next(run[0] for run in document["runs"] if run[2] == owner)
    with store.open("r+b") as file:
        file.seek(first * document["cluster_size"] + 4321)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def bit_rot(stage: Stage, primary: Path, replica: Path) -> Path:
    """A flipped bit on the replica's disk is found, and repaired by copying one cluster."""
    stage.unmount(replica)
    rot(stage.directory / "replica.img", "monday")
    replica = stage.mount(stage.directory / "replica.img", "replica")
    (monday, tuesday) = lvolfs("scrub", replica, accept=(3,))["snapshots"]
    wrong = sum(count for _, count in monday["mismatched"])
    check((monday["name"], wrong) == ("monday", 1), "scrub: 1 cluster of monday is wrong")
    check(tuesday["mismatched"] == [], "scrub: tuesday is right")
    lvolfs("checksum", "register", replica, "monday")
    report, _ = rebuild(primary, replica, "repair by checksums")
    check(report["totals"]["copied"] == 1, "1 cluster copied")
    lvolfs("scrub", replica)
    same_snapshots(primary, replica, ["monday", "tuesday"])
    return replica


def play(stage: Stage) -> None:
    here = stage.directory
    title("Two stores on sparse files, mounted")
    for name in ("primary", "replica"):
        store = lvolfs("create", here / f"{name}.img", "--size", STORE_SIZE, "--name", name)
        say(f"  {name}: {store['total_clusters']} clusters of {mib(store['cluster_size'])}")
    primary = stage.mount(here / "primary.img", "primary")
    replica = stage.mount(here / "replica.img", "replica")

    title("A 1 GiB volume with ext4 and files of this machine")
    content = here / "content"
    files, size = filesystem.collect(content)
    lvolfs("volume", "create", primary, "disk", "--size", str(VOLUME_SIZE))
    volume = primary / "volumes/disk"
    filesystem.make_ext4(volume, content)
    say(f"  {files} files, {mib(size)}; {filesystem.fsck(volume)}")

    title("Snapshot, checksums, full rebuild of the replica")
    lvolfs("snapshot", primary, "disk", "monday")
    registered = lvolfs("checksum", "register", primary, "monday")
    job = registered["job"]
    say(
        f"  registered {job['total_clusters']} clusters in {job['seconds']:.2f} s "
        f"({job['bytes'] / job['seconds'] / 1e9:.2f} GB/s)"
    )
    full, full_seconds = rebuild(primary, replica, "full rebuild")
    same_snapshots(primary, replica, ["monday"])

    title("The replica is cut off; 1 % of the files change meanwhile")
    stage.unmount(replica)
    changed, changed_bytes = filesystem.change(volume, content, here / "changed")
    say(f"  {changed} of {files} files replaced, {mib(changed_bytes)}")
    check(changed * 100 >= files, "at least 1 % of the files changed")
    say(f"  {filesystem.fsck(volume)}")
    lvolfs("snapshot", primary, "disk", "tuesday")
    lvolfs("checksum", "register", primary, "tuesday")

    title("The replica is back: delta rebuild")
    replica = stage.mount(here / "replica.img", "replica")
    delta, delta_seconds = rebuild(primary, replica, "delta rebuild")
    same_snapshots(primary, replica, ["monday", "tuesday"])

    title("Proof")
    copy = replica / "volumes/disk"
    check(
        lvolfs("diff", primary, "tuesday", f"{replica}:tuesday")["equal"],
        "lvolfs diff: no cluster differs",
    )
    sums = [filesystem.sha256(volume), filesystem.sha256(copy)]
    check(sums[0] == sums[1], f"sha256 of both volumes: {sums[0]}")
    say(f"  fsck of the replica: {filesystem.fsck(copy)}")
    run("cmp", volume, copy)

    title("One bit of the replica's disk flips")
    replica = bit_rot(stage, primary, replica)

    title("The six steps, by xattrs")
    six_steps(primary, ByXattrs(primary), "xattr")
    title("The six steps, by ioctls")
    six_steps(primary, ByIoctls(), "ioctl")

    title("Full against delta")
    for label, report, seconds in (("full", full, full_seconds), ("delta", delta, delta_seconds)):
        totals = report["totals"]
        say(
            f"  {label:5}  clusters owned {totals['owned']:5}  differing {totals['differing']:5}  "
            f"copied {totals['copied']:5}  moved {mib(totals['bytes_moved']):>10}  {seconds:6.2f} s"
        )
    check(delta["totals"]["bytes_moved"] < full["totals"]["bytes_moved"], "the delta moved less")

    title("Both stores are consistent")
    stage.unmount(primary)
    stage.unmount(replica)
    for name in ("primary", "replica"):
        check(lvolfs("check", here / f"{name}.img")["consistent"], f"lvolfs check {name}.img")


def main() -> int:
    if shutil.which("fusermount3") is None:
        say("demo: fusermount3 is missing; run: make setup")
        return 1
    start = time.monotonic()
    try:
        with Stage(NEEDED_BYTES) as stage:
            play(stage)
    except DemoFailedError as error:
        print(f"\ndemo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything is unmounted and deleted", file=sys.stderr)
        return 130
    say(f"\nEverything holds ({time.monotonic() - start:.0f} s). Nothing is left mounted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
