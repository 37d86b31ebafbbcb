"""Runs one fuzz target: python -m tests.fuzz.run TARGET [--seconds N] [FILES...]

With FILES (or folders of them) only those inputs are tried. Otherwise new ones are made until
the time is over: coverage-guided by atheris if it is installed and wanted, else by mutating the
corpus at random. What guides atheris is the Python code, and under `scripts/sanitized fuzzer` the
native code, too. The input under way is kept in --artifacts, so that one that kills the process
is there afterwards. Exit status 0: nothing found.
"""

import argparse
import faulthandler
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn, Protocol

from tests.fuzz.limits import CASE_SECONDS
from tests.torture import count

CORPUS = Path(__file__).parent / "corpus"
LONGEST_INPUT = 400
# For libFuzzer, which sees what all cases together take; shadow memory of sanitizers included.
PROCESS_MIB = 4096
# Memory goes with what a store of a few MiB holds, whatever the counts in it say.
CASE_MEMORY = 256 << 20
TARGETS = ("opening", "requests", "fuse", "wire")


class Target(Protocol):
    def run(self, data: bytes) -> None: ...
    def close(self) -> None: ...


def make_target(name: str, folder: Path) -> Target:
    if name == "opening":
        from tests.fuzz.opening import Opening

        return Opening(folder)
    if name == "requests":
        from tests.fuzz.requests import Requests

        return Requests(folder)
    if name == "fuse":
        from tests.fuzz.fuse import Fuse

        return Fuse(folder)
    from tests.fuzz.wire import Wire

    return Wire(folder)


def resident() -> int:
    """Bytes of memory in use, at their highest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Fuzzer:
    """Counts executions, limits each in time and memory, and keeps its input."""

    def __init__(self, target: Target, artifacts: Path, name: str) -> None:
        self._target = target
        self._name = name
        self._current = artifacts / f"{name}-under-way"
        self._base = 0
        self.executions = 0

    def one(self, data: bytes) -> None:
        self._current.write_bytes(data)
        if self.executions == 20:
            # Everything is imported and warm: from here on memory counts.
            self._base = resident()
        faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
        try:
            self._target.run(data)
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.executions += 1
        if self._base and resident() > self._base + CASE_MEMORY:
            raise AssertionError(f"{resident() - self._base >> 20} MiB more than at the start")

    def finished(self) -> None:
        """The end of the time: the target's last checks, and what was done."""
        self._target.close()
        self._current.unlink()
        count(f"fuzz executions, {self._name}", self.executions)
        print(f"{self._name}: {self.executions} executions, nothing found", flush=True)


class Formatting(logging.Handler):
    """Makes every message, as a log would, and drops it."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


def mutate(chance: random.Random, corpus: list[bytes]) -> bytes:
    """A new input: random bytes, or a few changes to one that is there."""
    if not corpus or chance.random() < 0.4:
        return chance.randbytes(chance.randrange(1, LONGEST_INPUT))
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randrange(1, 8)):
        kind = chance.randrange(4)
        place = chance.randrange(len(data) + 1)
        if kind == 0 and place < len(data):
            data[place] = chance.randrange(256)
        elif kind == 1:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 2:
            del data[place : place + chance.randrange(1, 9)]
        else:
            data[place:] = chance.choice(corpus)[place:]
    return bytes(data[:LONGEST_INPUT])


def run_plain(fuzzer: Fuzzer, corpus: list[bytes], seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fuzzer.one(mutate(chance, corpus))


def run_guided(fuzzer: Fuzzer, folder: Path, options: argparse.Namespace) -> NoReturn:
    """Ends the process, which libFuzzer would do otherwise: it never returns."""
    import atheris

    arguments = [
        sys.argv[0],
        f"-seed={options.seed}",
        f"-max_len={LONGEST_INPUT}",
        "-len_control=0",
        "-print_funcs=0",
        f"-artifact_prefix={options.artifacts}/",
        f"-timeout={int(CASE_SECONDS)}",
        f"-rss_limit_mb={PROCESS_MIB}",
        str(options.artifacts),
    ]
    if folder.is_dir():
        arguments.append(str(folder))
    end = time.monotonic() + options.seconds

    def one(data: bytes) -> None:
        fuzzer.one(data)
        if time.monotonic() >= end:
            fuzzer.finished()
            shutil.rmtree(options.folder)
            sys.stdout.flush()
            os._exit(0)

    atheris.Setup(arguments, one)
    atheris.Fuzz()
    raise AssertionError("atheris has come back")


def inputs(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        found += sorted(path.iterdir()) if path.is_dir() else [path]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=("plain", "atheris"), default="plain")
    parser.add_argument("--artifacts", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_intermixed_args()
    options.artifacts.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, handlers=[Formatting()])
    if options.engine == "atheris":
        import atheris

        atheris.instrument_imports(include=["lvolfs"]).__enter__()
    parent = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="lvolfs-fuzz-", dir=parent) as folder:
        options.folder = folder
        target = make_target(options.target, Path(folder))
        fuzzer = Fuzzer(target, options.artifacts, options.target)
        print(f"{options.target}: seed {options.seed}, {options.engine}", flush=True)
        corpus = CORPUS / options.target
        if options.files:
            for path in inputs(options.files):
                print(f"trying {path}", flush=True)
                fuzzer.one(path.read_bytes())
        elif options.engine == "atheris":
            run_guided(fuzzer, corpus, options)
        else:
            known = [path.read_bytes() for path in inputs([corpus] if corpus.is_dir() else [])]
            run_plain(fuzzer, known, options.seconds, options.seed)
        fuzzer.finished()


if __name__ == "__main__":
    main()
