"""Background jobs of a store: checksum registrations, copies, rebuilds.

A job runs in a thread of its own, which spends its time in a native loop without the GIL.
Operation ids ascend over all stores of the process, the first is 1.
"""

from __future__ import annotations

import atexit
import errno
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from lvolfs._native.control import Control, enter_background
from lvolfs.bdev.apart import start_thread

if TYPE_CHECKING:
    from lvolfs.lvstore.store import Lvstore

State: TypeAlias = Literal["in progress", "complete", "error", "cancelled"]
Kind: TypeAlias = Literal["checksum", "verify", "copy", "rebuild", "inflate", "decouple"]

KEPT_FINISHED: Final = 1000

# How long close() waits for jobs that were cancelled. One that is stuck in a call of the kernel,
# writing to a file on a server that is gone, cannot be had out of there.
CLOSE_PATIENCE: Final = 10.0

_log = logging.getLogger(__name__)
_next_id = itertools.count(1)
_registries: weakref.WeakSet[JobRegistry] = weakref.WeakSet()


def next_id() -> int:
    """An operation id that no other job of this process has."""
    return next(_next_id)


class Job:
    """One background operation. Counts are clusters, `bytes` are bytes moved or read.

    `total` is what is to be done; `done` reaches it when the job is complete. `error` is a
    sentence, `errno` its number; `result` is what the operation gives back, if anything.
    """

    def __init__(self, kind: Kind, *, lvol: str, lvol_uuid: str, destination: str | None) -> None:
        self.id = next_id()
        self.kind: Kind = kind
        self.lvol = lvol
        self.lvol_uuid = lvol_uuid
        self.destination = destination
        self.control = Control()
        self.total = 0
        self.skipped = 0
        self.phase = ""
        self.state: State = "in progress"
        self.error: str | None = None
        self.errno: int | None = None
        self.result: Any = None
        self.started = datetime.now(UTC)
        # Its end has been reported to an SPDK client, which counts it as gone.
        self.forgotten = False
        # Cancelled at the store's end, and still stuck in its destination.
        self.left_behind = False
        self._begun = time.monotonic()
        self._ended: float | None = None
        self._finished = threading.Event()

    @property
    def copied(self) -> int:
        return self.control.copied

    @property
    def unmapped(self) -> int:
        return self.control.unmapped

    @property
    def done(self) -> int:
        """Clusters dealt with so far."""
        control = self.control
        if self.kind in ("checksum", "verify"):
            return control.hashed
        return self.skipped + control.copied + control.unmapped

    @property
    def bytes(self) -> int:
        if self.kind in ("checksum", "verify"):
            return self.control.bytes_read
        return self.control.bytes_written

    @property
    def seconds(self) -> float:
        return (self._ended if self._ended is not None else time.monotonic()) - self._begun

    @property
    def rate(self) -> float:
        """Mean bytes per second."""
        seconds = self.seconds
        return self.bytes / seconds if seconds > 0 else 0.0

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """True when the job has ended within `timeout` seconds."""
        return self._finished.wait(timeout)

    def cancel(self) -> None:
        """Asks the job to end; its state turns "cancelled" soon after, unless it was done."""
        self.control.cancel()

    def raise_if_failed(self) -> None:
        """OSError with the job's errno and sentence unless it is complete or under way."""
        if self.state in ("error", "cancelled"):
            raise OSError(self.errno or errno.EIO, self.error)

    def as_dict(self) -> dict[str, object]:
        """For JSON: the same names as the attributes."""
        return {
            "id": self.id,
            "kind": self.kind,
            "lvol": self.lvol,
            "destination": self.destination,
            "state": self.state,
            "phase": self.phase,
            "total_clusters": self.total,
            "done_clusters": self.done,
            "copied_clusters": self.copied,
            "unmapped_clusters": self.unmapped,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate),
            "started": self.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "error": self.error,
            "errno": self.errno,
        }

    def end(self, state: State, *, error: str | None = None, code: int | None = None) -> None:
        """For whoever runs the job."""
        self.error = error
        self.errno = code
        self._ended = time.monotonic()
        self.state = state
        self._finished.set()


def explain(error: OSError) -> str:
    """The sentence of an OSError without its number."""
    if error.strerror is None:
        return str(error)
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


class JobRegistry:
    """The jobs of one store, the last 1000 finished ones included."""

    def __init__(self, store_name: str) -> None:
        self._store_name = store_name
        self._lock = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._closed = False
        _registries.add(self)

    def start(self, job: Job, work: Callable[[Job], object], held: ExitStack | None = None) -> Job:
        """Runs work(job) in a thread. `held` is closed when it ends, whatever happens; if the
        job cannot be started it is closed at once."""
        try:
            with self._lock:
                self._check_open()
                start_thread(
                    threading.Thread(
                        target=self._run,
                        args=(job, work, held),
                        name=f"lvolfs-{job.kind}-{job.id}",
                        daemon=True,
                    )
                )
                self._jobs[job.id] = job
        except BaseException:
            if held is not None:
                held.close()
            raise
        return job

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.ESHUTDOWN, f"store '{self._store_name}' is being closed")

    def adopt(self, job: Job) -> None:
        """Lists a job that another store's registry runs and that works on this store too."""
        with self._lock:
            self._jobs[job.id] = job

    def add_refused(self, job: Job, reason: OSError) -> Job:
        """Keeps a job that could not start, in state "error"."""
        with self._lock:
            self._jobs[job.id] = job
        job.end("error", error=explain(reason), code=reason.errno)
        return job

    def get(self, job_id: int) -> Job:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None or job.forgotten:
            raise OSError(
                errno.ENODEV, f"store '{self._store_name}' has no job {job_id}; 'jobs' lists them"
            )
        return job

    def list(self) -> list[Job]:
        """All jobs kept, ascending by id."""
        with self._lock:
            return [self._jobs[key] for key in sorted(self._jobs)]

    def active(self, kind: Kind, lvol_uuid: str) -> Job | None:
        """The unfinished job of that kind on that lvol."""
        for job in self.list():
            if job.kind == kind and job.lvol_uuid == lvol_uuid and not job.finished:
                return job
        return None

    def cancel(self, job_id: int) -> None:
        """OSError(ESRCH) when the job has ended already."""
        job = self.get(job_id)
        if job.finished:
            raise OSError(errno.ESRCH, f"job {job_id} has ended already: {job.state}")
        job.cancel()

    def forget(self, job_id: int) -> None:
        """Makes `get` refuse a finished job, as SPDK does once its end has been asked for;
        it is still listed."""
        job = self.get(job_id)
        job.forgotten = job.finished

    def close(self) -> None:
        """Cancels what runs and waits for it; new jobs are refused. Call before the store's
        engine goes away.

        A job that does not come back within CLOSE_PATIENCE is left behind, with a line in the
        log: it sits in a call on its destination, holds no lock of the store, and ends before
        its next request to it.
        """
        with self._lock:
            self._closed = True
            jobs = [job for job in self._jobs.values() if not job.finished]
        for job in jobs:
            job.cancel()
        deadline = time.monotonic() + CLOSE_PATIENCE
        for job in jobs:
            if not job.left_behind and not job.wait(max(0.0, deadline - time.monotonic())):
                job.left_behind = True
                _log.warning(
                    "job %d (%s of %s) is left behind: %s does not answer",
                    job.id,
                    job.kind,
                    job.lvol,
                    job.destination or "its device",
                )

    def _run(self, job: Job, work: Callable[[Job], object], held: ExitStack | None) -> None:
        state: State = "complete"
        text: str | None = None
        code: int | None = None
        try:
            enter_background()
            with held if held is not None else ExitStack():
                job.result = work(job)
        except OSError as error:
            cancelled = error.errno == errno.ECANCELED and job.control.cancelled
            state, text, code = "cancelled" if cancelled else "error", explain(error), error.errno
        except MemoryError:
            state, text, code = "error", os.strerror(errno.ENOMEM), errno.ENOMEM
        except BaseException as error:
            _log.exception("job %d (%s of %s) failed unexpectedly", job.id, job.kind, job.lvol)
            state, code = "error", errno.EIO
            text = f"{os.strerror(errno.EIO)}: unexpected {type(error).__name__}: {error}"
        finally:
            job.end(state, error=text, code=code)
            self._drop_old()

    def _drop_old(self) -> None:
        with self._lock:
            finished = [key for key in sorted(self._jobs) if self._jobs[key].finished]
            for key in finished[:-KEPT_FINISHED]:
                del self._jobs[key]


_making = threading.Lock()


def registry(store: Lvstore) -> JobRegistry:
    """The registry of a store, made at the first call and kept as store.jobs."""
    with _making:
        found: JobRegistry | None = store.jobs
        if found is None:
            found = JobRegistry(store.name)
            store.jobs = found
            store.closers.append(found.close)
        return found


def _stop_all() -> None:
    for each in list(_registries):
        each.close()


# Threads are daemons, or an interrupted command would wait for its copy to end; they are
# cancelled and awaited here because a native loop must not outlive the interpreter.
atexit.register(_stop_all)
