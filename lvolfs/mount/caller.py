"""Whether a process that uses the mount may have the daemon open a path for it.

Its uid is the daemon's, or root's: nobody else gets as far. But it may be confined all the same:
in a container or chroot that sees other files, without some of the daemon's groups, or as root
without root's capabilities. The daemon must not be its way out.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

# CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, SYS_RAWIO, SYS_ADMIN
_FILE_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 17 | 1 << 21


def check_sees_the_same(pid: int, what: str) -> None:
    """OSError(EPERM) unless process `pid`, which waits for our answer, is confined no more than
    this process is. pid 0: one that the daemon cannot see."""
    try:
        reason = _confinement(pid) if pid else "its process is not visible here"
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        reason = f"its process cannot be looked at ({error.strerror})"
    if reason is not None:
        raise OSError(
            errno.EPERM,
            f"{what} is not opened for process {pid}: {reason}; name an lvol of the store, or "
            "use a process like the daemon",
        )


def _confinement(pid: int) -> str | None:
    theirs, ours = Path("/proc", str(pid)), Path("/proc/self")
    for place, text in (
        ("ns/mnt", "it has other mounts"),
        ("root", "it has another root directory"),
        ("ns/user", "it is in another user namespace"),
        ("ns/net", "it has another network"),
    ):
        there, here = (theirs / place).stat(), (ours / place).stat()
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            return text
    status, own = _status(theirs), _status(ours)
    groups = {int(each) for each in own["Groups"].split()} | {os.getegid()}
    has = {int(each) for each in status["Groups"].split()} | {int(status["Gid"].split()[1])}
    if os.geteuid() != 0 and not groups <= has:
        return "it lacks groups of the daemon"
    if int(own["CapEff"], 16) & _FILE_CAPABILITIES & ~int(status["CapEff"], 16):
        return "it lacks capabilities of the daemon"
    return None


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text(encoding="ascii", errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}
