"""Many lives, one after the other or in several processes, until enough states were tried."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from lvolfs.lvstore import store as store_module
from tests.crash.replay import Failure, record, replay

NO_LIMIT = 1 << 62


@dataclass
class Result:
    """All that was tried; `failure` ended it. skipped: lives that were no proof of anything."""

    states: int = 0
    lives: int = 0
    seconds: float = 0.0
    failure: Failure | None = None


@contextmanager
def memory_directory() -> Iterator[Path]:
    """In memory where there is some: thousands of small stores are written and flushed."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="lvolfs-crash-", dir=parent) as directory:
        yield Path(directory)


def one_life(seed: int, limit: int, fault: str | None = None) -> tuple[int, Failure | None]:
    """How many states of this life held, and the first that did not."""
    # A thread that flushes now and then would make lives that cannot be had again.
    with memory_directory() as directory, patch.object(store_module, "FLUSH_INTERVAL", 0):
        life = record(directory, seed, fault=fault)
        return replay(directory, life, seed, limit, fault)


def live_until(
    states: int,
    *,
    first_seed: int = 1,
    seconds: float = 0,
    processes: int = 0,
    fault: str | None = None,
) -> Result:
    """Lives of the seeds from `first_seed` on until `states` states have held and `seconds`
    are over, or one state has not. processes: 0 for one per core, 1 for none but this."""
    result = Result()
    begin = time.monotonic()
    seeds = count(first_seed)

    def enough() -> bool:
        return result.states >= states and time.monotonic() - begin >= seconds

    def limit() -> int:
        return NO_LIMIT if seconds else states - result.states

    def take(tried: int, failure: Failure | None) -> None:
        result.states += tried
        result.lives += 1
        if failure is not None and (result.failure is None or failure.seed < result.failure.seed):
            result.failure = failure

    processes = processes or os.cpu_count() or 1
    if processes == 1:
        while not enough() and result.failure is None:
            take(*one_life(next(seeds), limit(), fault))
    else:
        # Not forked: there may be threads in this process.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            running: set[Future[tuple[int, Failure | None]]] = set()
            while True:
                while len(running) <= processes and not enough() and result.failure is None:
                    running.add(pool.submit(one_life, next(seeds), limit(), fault))
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    take(*future.result())
    result.seconds = time.monotonic() - begin
    return result
