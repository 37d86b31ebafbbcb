"""Reads of a volume whose clusters are spread over a chain of 1, 8 and 64 snapshots."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench import fio
from bench.case import Case, Sample
from bench.content import Content
from bench.page_cache import kept_warm
from bench.peers.block_files import mounted_store, scratch_directory
from bench.processes import lvolfs
from bench.settings import MIB, Settings

LENGTHS = {"no snapshot": 0, "1 snapshot": 1, "8 snapshots": 8, "64 snapshots": 64}


class Chains:
    """A mounted store with one volume for each length, all made on first use."""

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self.size = size
        self.stack = contextlib.ExitStack()
        self.mountpoint = directory / "mnt"

    def __enter__(self) -> "Chains":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def __getitem__(self, name: str) -> Path:
        store = self.directory / "store"
        if not store.exists():
            lvolfs("create", store, "--size", str(len(LENGTHS) * self.size * 9 // 8 + 256 * MIB))
            self.stack.enter_context(mounted_store(store, self.mountpoint))
            for length in LENGTHS.values():
                self.make(self.volume(length), length)
            self.stack.enter_context(kept_warm(store))
        return self.volume(LENGTHS[name])

    def volume(self, length: int) -> Path:
        return self.mountpoint / f"volumes/v{length}"

    def make(self, volume: Path, length: int) -> None:
        """Snapshot i of the chain owns every cluster with number i modulo its length."""
        content = Content()
        with volume.open("wb") as file:
            file.truncate(self.size)
        if not length:
            content.fill(volume, self.size)
        for number in range(length):
            content.write_blocks(volume, range(number, self.size // MIB, length))
            os.setxattr(volume, "user.lvolfs.snapshot", f"{volume.name}-{number}".encode())


@contextlib.contextmanager
def open_group(settings: Settings) -> Iterator[list[Case]]:
    with (
        scratch_directory(settings.directory) as directory,
        Chains(directory, settings.volume_size // 2) as chains,
    ):

        def case(mode: str, block: str, depth: int, title: str) -> Case:
            def measure(name: str) -> Sample:
                sample = fio.run(chains[name], mode, block, depth=depth, seconds=settings.seconds)
                sample["value"] = sample["iops"] if block == "4k" else sample["bytes"] / 1e9
                return sample

            unit = "IOPS" if block == "4k" else "GB/s"
            fewer = {} if block == "4k" else dict.fromkeys(LENGTHS, 3)
            key = f"chain.{mode}.{block}.qd{depth}"
            return Case(key, title, unit, tuple(LENGTHS), measure, rounds=fewer)

        yield [
            case("randread", "4k", 32, "4 KiB random read through snapshots, QD32"),
            case("read", "1m", 4, "1 MiB sequential read through snapshots, QD4"),
        ]
