"""python file_load.py DIRECTORY SEED: random work in a file system until an error or a signal.

Prints a line for what cannot be taken back: `kept NAME` after NAME, which holds
content(NAME), and its directory were flushed; `gone NAME` before NAME is removed.
"""

import os
import random
import sys
import zlib
from pathlib import Path


def content(name: str) -> bytes:
    chance = random.Random(zlib.crc32(name.encode()))
    return chance.randbytes(chance.randrange(1, 200_000))


def flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def keep(folder: Path, name: str, data: bytes, chance: random.Random) -> None:
    """Under another name first, in pieces, with more than it needs."""
    unfinished = folder / f"{name}.new"
    with unfinished.open("wb") as file:
        half = chance.randrange(len(data) + 1)
        file.write(data[:half])
        file.flush()
        os.truncate(file.fileno(), len(data) + chance.randrange(100_000))
        file.write(data[half:])
        file.truncate(len(data))
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(folder / name)
    flush(folder)
    print("kept", name, flush=True)


def main(directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    names: list[tuple[Path, str]] = []
    number = 0
    while True:
        folder = directory / f"d{chance.randrange(5)}"
        kind = chance.random()
        # Bounded in number, however fast the machine: a full file system would end it.
        if (kind < 0.5 and len(names) < 60) or len(names) < 10:
            folder.mkdir(exist_ok=True)
            flush(directory)
            number += 1
            name = f"f{seed}-{number}"
            keep(folder, name, content(name), chance)
            names.append((folder, name))
        elif kind < 0.8 and len(names) > 30:
            folder, name = names.pop(chance.randrange(len(names)))
            print("gone", name, flush=True)
            (folder / name).unlink()
        elif kind < 0.9:
            with (directory / "scratch").open("ab") as file:
                file.write(chance.randbytes(50_000))
                file.truncate(chance.randrange(1 << 20))
        else:
            folder, name = chance.choice(names)
            if (folder / name).read_bytes() != content(name):
                print("wrong", name, flush=True)
                return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
