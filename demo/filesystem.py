"""A real ext4 of real files on a volume, and a change of one per cent of them."""

import hashlib
import os
import random
import shutil
from pathlib import Path

from stage import DemoFailedError, run

ROOTS = ("/usr/bin", "/usr/lib", "/usr/share")
WANTED_BYTES = 700 << 20
MOST_FILES = 12_000
LARGEST_FILE = 32 << 20


def collect(directory: Path) -> tuple[int, int]:
    """Collects regular files of this machine there: (files, bytes)."""
    files = total = 0
    for root in ROOTS:
        for parent, folders, names in os.walk(root):
            folders.sort()
            target = directory / parent.lstrip("/")
            for name in sorted(names):
                source = Path(parent, name)
                if source.is_symlink() or not source.is_file() or not os.access(source, os.R_OK):
                    continue
                size = source.stat().st_size
                if size > LARGEST_FILE or (target / name).exists():
                    continue
                target.mkdir(parents=True, exist_ok=True)
                _take(source, target / name)
                files += 1
                total += size
                if total >= WANTED_BYTES or files >= MOST_FILES:
                    return files, total
    return files, total


def _take(source: Path, target: Path) -> None:
    """A hard link where that is allowed, else a copy; the content is only read."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def make_ext4(volume: Path, content: Path) -> None:
    """mkfs.ext4 of a directory's content; works without root."""
    run("mkfs.ext4", "-q", "-F", "-i", "8192", "-m", "0", "-d", content, volume)


def change(volume: Path, content: Path, scratch: Path) -> tuple[int, int]:
    """Replaces the files of some directories, as an upgrade does, until 1 % is changed.

    Returns (files, bytes) changed. The directories are drawn with a fixed seed.
    """
    all_files = sum(len(names) for _, _, names in os.walk(content))
    folders = sorted(
        Path(parent) for parent, _, names in os.walk(content) if 0 < len(names) <= all_files // 200
    )
    draw = random.Random(1)
    draw.shuffle(folders)
    commands = []
    changed = total = 0
    scratch.mkdir()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            path = "/" + str(file.relative_to(content))
            if not file.is_file() or '"' in path or "\n" in path:
                continue
            fresh = scratch / str(changed)
            fresh.write_bytes(draw.randbytes(file.stat().st_size))
            commands += [f'rm "{path}"', f'write {fresh} "{path}"']
            changed += 1
            total += fresh.stat().st_size
        if changed * 100 >= all_files:
            break
    script = scratch / "commands"
    script.write_text("\n".join(commands) + "\n")
    output = run("debugfs", "-w", "-f", script, volume)
    quiet = ("debugfs:", "Allocated inode:")
    complaints = [line for line in output.splitlines() if line and not line.startswith(quiet)]
    if complaints:
        raise DemoFailedError(f"debugfs: {complaints[0]}")
    return changed, total


def fsck(volume: Path) -> str:
    """The verdict of fsck.ext4, forced and read-only; fails if it finds anything."""
    return run("fsck.ext4", "-f", "-n", volume).strip().splitlines()[-1]


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
