"""fio runs and what is read out of them."""

import json
from pathlib import Path

from bench.case import Sample
from bench.processes import ProgramError, execute


def run(
    file: Path,
    mode: str,
    block: str,
    *,
    engine: str = "libaio",
    depth: int = 1,
    jobs: int = 1,
    direct: bool = True,
    seconds: float | None = None,
    log: Path | None = None,
    size: int | None = None,
) -> Sample:
    """One run over `file`: for `seconds`, or, without, until all of the file or `log` is done.

    `log` is a list of offsets to write to (fio iolog, version 2).
    """
    words = [
        "fio",
        "--name=bench",
        f"--bs={block}",
        f"--ioengine={engine}",
        f"--iodepth={depth}",
        f"--numjobs={jobs}",
        "--group_reporting",
        f"--direct={int(direct)}",
        "--randrepeat=0",
        "--invalidate=0",
        "--output-format=json",
    ]
    if log:
        words += [f"--read_iolog={log}", f"--replay_redirect={file}", "--replay_no_stall=1"]
    else:
        words += [f"--filename={file}", f"--rw={mode}", "--rwmixread=70"]
        words += [f"--size={size}"] if size else []
    if seconds is not None:
        words += ["--time_based", f"--runtime={round(seconds * 1000)}ms", "--norandommap"]
    return read_output(execute(*words))


def read_output(text: str) -> Sample:
    """IOPS, bytes per second, latencies in microseconds; reads and writes together.

    Latency is of the reads where there were any.
    """
    document = json.loads(text[text.index("{") :])
    job = document["jobs"][0]
    if job.get("error"):
        raise ProgramError(f"fio: job ended with error {job['error']}")
    sides = [job[name] for name in ("read", "write") if job[name]["total_ios"]]
    if not sides:
        raise ProgramError("fio: did no I/O")
    percentiles = sides[0]["clat_ns"].get("percentile", {})
    return {
        "iops": float(sum(side["iops"] for side in sides)),
        "bytes": float(sum(side["bw_bytes"] for side in sides)),
        "ios": float(sum(side["total_ios"] for side in sides)),
        "latency_mean": sides[0]["clat_ns"]["mean"] / 1e3,
        "latency_p50": percentiles.get("50.000000", 0) / 1e3,
        "latency_p99": percentiles.get("99.000000", 0) / 1e3,
        "fio_cpu": job["usr_cpu"] + job["sys_cpu"],
    }
