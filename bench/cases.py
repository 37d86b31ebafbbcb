"""The quick comparisons: fio on a volume beside a plain file, hashing beside xxhsum, copy
beside cp."""

import json
from pathlib import Path

from bench.measurement import Case
from bench.scene import Scene, execute, lvolfs, timed

FIO = (
    ("4 KiB random read, QD1", "randread", "4k", 1),
    ("4 KiB random read, QD32", "randread", "4k", 32),
    ("4 KiB random write, QD1", "randwrite", "4k", 1),
    ("4 KiB random write, QD32", "randwrite", "4k", 32),
    ("1 MiB read, QD4", "read", "1m", 4),
    ("1 MiB write, QD4", "write", "1m", 4),
)


def fio(file: Path, mode: str, block: str, depth: int, seconds: float) -> dict[str, float]:
    """IOPS and bytes per second of one fio run with libaio and O_DIRECT."""
    output = execute(
        "fio",
        "--name=bench",
        f"--filename={file}",
        f"--rw={mode}",
        f"--bs={block}",
        f"--iodepth={depth}",
        "--ioengine=libaio",
        "--direct=1",
        "--time_based",
        f"--runtime={seconds}",
        "--randrepeat=0",
        "--norandommap",
        "--output-format=json",
    )
    job = json.loads(output[output.index("{") :])["jobs"][0]
    side = job["write" if "write" in mode else "read"]
    return {"iops": float(side["iops"]), "bytes": float(side["bw_bytes"])}


def data_cases(scene: Scene, seconds: float) -> list[Case]:
    def case(name: str, mode: str, block: str, depth: int) -> Case:
        key, unit, scale = ("iops", "IOPS", 1.0) if block == "4k" else ("bytes", "GB/s", 1e9)

        def on(file: Path) -> float:
            return fio(file, mode, block, depth, seconds)[key] / scale

        return Case(name, unit, lambda: on(scene.volume), lambda: on(scene.plain), "the plain file")

    return [case(*job) for job in FIO]


def delta_cases(scene: Scene) -> list[Case]:
    def register() -> float:
        done = lvolfs("checksum", "register", scene.mountpoint, "frozen")
        job = done["job"]
        return float(job["bytes"] / job["seconds"] / 1e9)

    def xxhsum() -> float:
        return scene.size / timed("xxhsum", "-H3", scene.plain_frozen) / 1e9

    target = scene.directory / "copy"

    def shallow_copy() -> float:
        with target.open("wb") as file:
            file.truncate(scene.size)
        job = lvolfs("copy", scene.mountpoint, "frozen", target, "--wait")
        target.unlink()
        return float(job["bytes"] / job["seconds"] / 1e9)

    def cp() -> float:
        seconds = timed(
            "sh", "-c", f"cp --reflink=never '{scene.plain_frozen}' '{target}' && sync '{target}'"
        )
        target.unlink()
        return scene.size / seconds / 1e9

    return [
        Case("register checksums (xxh3)", "GB/s", register, xxhsum, "xxhsum -H3"),
        Case("shallow copy to a file", "GB/s", shallow_copy, cp, "cp and sync"),
    ]
