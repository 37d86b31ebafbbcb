"""Who has a file or block device open for writing, as far as this process may see.

The questions are about the status of a file, not about its path: a client who may not reach a
file could have a path looked up anew lead to it, and read from the answer what it is.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

_ACCESS_MODES = os.O_ACCMODE


def mounted_at(here: os.stat_result) -> str | None:
    """The mount point of a block device."""
    device = f"{os.major(here.st_rdev)}:{os.minor(here.st_rdev)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split(" ")
        if fields[2] == device:
            return fields[4].encode("latin-1", "replace").decode("unicode_escape")
    return None


def loop_device_of(here: os.stat_result) -> str | None:
    """The loop device that has this regular file as its backing file."""
    for entry in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        try:
            backing = entry.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
            there = Path(backing).stat()
        except OSError:
            continue  # detached meanwhile, or a file that is gone
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return f"/dev/{entry.parent.parent.name}"
    return None


def writer_of(here: os.stat_result) -> str | None:
    """ "process NAME (PID)" for one that has the file or device open for writing.

    Looks at the processes that this user may look at; None proves nothing. Does not ask the
    file systems of unrelated descriptors, one of which may be hung: nodes of block devices
    count only under /dev.
    """
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                if _writes(process, descriptor.name, here):
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"process {name} ({process.name})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return None


def _writes(process: Path, descriptor: str, here: os.stat_result) -> bool:
    entry = process / "fd" / descriptor
    try:
        fields = dict(
            line.split(":", 1)
            for line in (process / "fdinfo" / descriptor).read_text(encoding="ascii").splitlines()
            if ":" in line
        )
        if int(fields["flags"], 8) & _ACCESS_MODES == os.O_RDONLY:
            return False
        if stat.S_ISBLK(here.st_mode):
            if not str(entry.readlink()).startswith("/dev/"):
                return False
            there = entry.stat()
            return stat.S_ISBLK(there.st_mode) and here.st_rdev == there.st_rdev
        # Kernels before 5.14 do not tell the inode.
        if int(fields.get("ino", here.st_ino)) != here.st_ino:
            return False
        there = entry.stat()
    except OSError:
        return False  # closed meanwhile
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def lease_refused(descriptor: int) -> bool | None:
    """True when somebody has the regular file open for writing or mapped so, False if not.

    The kernel grants a read lease only on a file that nobody writes; `descriptor` must be
    open read-only. None where leases are not to be had (other owner, some file systems).
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
