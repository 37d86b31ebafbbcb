"""What is measured on, and whether anything else runs there."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.settings import Settings

BUSY_LIMIT = 0.10
"""Share of all processors' time that may be in use by others when the benchmark starts."""

VERSIONS = {
    "fio": ["fio", "--version"],
    "qemu": ["qemu-storage-daemon", "--version"],
    "nbdkit": ["nbdkit", "--version"],
    "nbdfuse": ["nbdfuse", "--version"],
    "rsync": ["rsync", "--version"],
    "btrfs-progs": ["btrfs", "--version"],
    "xfsprogs": ["mkfs.xfs", "-V"],
    "xxhsum": ["xxhsum", "--version"],
    "coreutils": ["cp", "--version"],
}


class LoadError(RuntimeError):
    """The machine is busy with something else."""


def processor_times(text: str) -> tuple[int, int, int]:
    """(idle, stolen, all) ticks since boot from the content of /proc/stat."""
    fields = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, waiting, hard, soft, stolen = fields
    return idle + waiting, stolen, user + nice + system + idle + waiting + hard + soft + stolen


def read_processor_times() -> tuple[int, int, int]:
    return processor_times(Path("/proc/stat").read_text())


def process_ticks() -> dict[int, tuple[str, int]]:
    """Name and used ticks of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
            fields = rest.split()
            found[int(path.parent.name)] = (name, int(fields[11]) + int(fields[12]))
    return found


def busy_share(before: tuple[int, int, int], after: tuple[int, int, int]) -> float:
    """Share of the processors' time in between that was neither idle nor waiting for a disk."""
    spent = after[2] - before[2]
    return 1 - (after[0] - before[0]) / spent if spent else 0.0


def busiest(
    before: dict[int, tuple[str, int]], after: dict[int, tuple[str, int]], own: int
) -> list[str]:
    """Up to three other processes that used the most time in between."""
    used = [
        (ticks - before.get(pid, ("", 0))[1], f"{name} ({pid})")
        for pid, (name, ticks) in after.items()
        if pid != own
    ]
    return [name for spent, name in sorted(used, reverse=True)[:3] if spent > 0]


def refuse_beside_load(seconds: float = 1.0, limit: float = BUSY_LIMIT) -> float:
    """The share of processor time in use now; LoadError naming the busiest if above `limit`.

    The load average would also count what has just ended.
    """
    before, ticks = read_processor_times(), process_ticks()
    time.sleep(seconds)
    share = busy_share(before, read_processor_times())
    if share <= limit:
        return share
    names = ", ".join(busiest(ticks, process_ticks(), os.getpid()))
    raise LoadError(
        f"other work takes {share:.0%} of the processors ({names or 'nothing visible here'}): "
        "figures would be worthless. Wait for it to end, or measure all the same with --force"
    )


def version_of(words: list[str]) -> str | None:
    if not shutil.which(words[0]):
        return None
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    first = (done.stdout or done.stderr).strip().split("\n")[0]
    return first or None


def debian_version(package: str) -> str | None:
    if not shutil.which("dpkg-query"):
        return None
    done = subprocess.run(
        ["dpkg-query", "-W", "-f=${Version}", package], check=False, capture_output=True, text=True
    )
    return done.stdout or None


def commit() -> str | None:
    """The commit that is measured, with "+" when files were changed; None outside of git."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    if not shutil.which("git"):
        return None
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=False, capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False, capture_output=True)
    return head.stdout.strip()[:12] + ("+" if changed.returncode else "") or None


def processor_name() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def describe(directory: Path) -> dict[str, Any]:
    """The machine, as it goes into the JSON."""
    file_system = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE,SOURCE,OPTIONS", "-T", str(directory)],
        check=False,
        capture_output=True,
        text=True,
    ).stdout.split()
    uring = Path("/sys/module/fuse/parameters/enable_uring")
    return {
        "processor": processor_name(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": " ".join(file_system[:1] + file_system[2:]),
        "fuse_over_io_uring": uring.read_text().strip() if uring.exists() else "not in this kernel",
        "cache_mode": "backing files locked in the page cache of the host for every contestant",
        "versions": {name: version_of(words) for name, words in VERSIONS.items()}
        | {"zfs-fuse": debian_version("zfs-fuse"), "libfuse": debian_version("libfuse3-3")},
    }


class Run:
    """One run: begun on an idle machine, or with `force` on any."""

    def __init__(self, settings: Settings, *, force: bool) -> None:
        """LoadError when the machine is busy."""
        self.settings = settings
        self.busy: float | None = None
        try:
            self.busy = refuse_beside_load()
        except LoadError:
            if not force:
                raise
        self.machine = describe(settings.directory)
        self.begun = datetime.now(UTC).isoformat(timespec="seconds")
        self.start, self.before = time.monotonic(), read_processor_times()
        self.commit = commit()
        self.interrupted = False
        self.skipped = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def document(self, arguments: list[str], version: str) -> dict[str, Any]:
        after = read_processor_times()
        return {
            "date": self.begun,
            "seconds": round(self.seconds, 1),
            "arguments": arguments,
            "busy_before": self.busy,
            "stolen": (after[1] - self.before[1]) / max(after[2] - self.before[2], 1),
            "quick": self.settings.quick,
            "rounds": self.settings.rounds,
            "fio_seconds": self.settings.seconds,
            "volume_size": self.settings.volume_size,
            "rebuild_size": self.settings.rebuild_size,
            "minutes": self.settings.minutes,
            "version": version,
            "commit": self.commit,
            "interrupted": self.interrupted,
            "skipped": self.skipped,
        }
