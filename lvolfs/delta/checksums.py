"""Registering, reading and verifying the checksums of snapshots."""

from __future__ import annotations

import errno
import logging
import threading
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from lvolfs._native.checksum import ChecksumLoop
from lvolfs._native.control import Control
from lvolfs._native.endpoint import Endpoint
from lvolfs.delta.background import run_loop, threads_for
from lvolfs.delta.checksum_table import (
    ALGORITHMS,
    CHECKSUM_XATTR,
    ChecksumTable,
    ClusterChecksums,
    CorruptTableError,
    bit,
    bits_set,
    count_bits,
    decode_records,
    decode_xattrs,
    encode_records,
    encode_xattrs,
    is_table_xattr,
    make_table,
    without,
    xattr_prefix,
    zero_values,
)
from lvolfs.delta.jobs import Job, registry

if TYPE_CHECKING:
    from lvolfs._native.checksum import Algorithm
    from lvolfs.lvstore.lvol import Lvol

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VerifyReport:
    """What re-reading a snapshot's registered clusters gave. Indexes are clusters."""

    algorithm: Algorithm
    checked: int
    unregistered: int
    mismatched: list[int]

    @property
    def ok(self) -> bool:
        return not self.mismatched


def parse_algorithm(name: str) -> Algorithm:
    for algorithm in ALGORITHMS:
        if name == algorithm:
            return algorithm
    raise OSError(errno.EINVAL, f"unknown checksum algorithm {name!r}; there are xxh3 and crc64")


def select_clusters(
    lvol_name: str, num_clusters: int, clusters: Iterable[int | range] | None
) -> array[int] | None:
    """The indexes in the order given, ranges unfolded; None stays None (all).

    OSError(ERANGE) for one past the end, OSError(EINVAL) for an empty selection.
    """
    if clusters is None:
        return None
    found: array[int] = array("I")
    for item in clusters:
        part = item if isinstance(item, range) else range(item, item + 1)
        if len(part) and not (
            min(part[0], part[-1]) >= 0 and max(part[0], part[-1]) < num_clusters
        ):
            raise OSError(
                errno.ERANGE,
                f"cluster {max(part[0], part[-1])} is past the end of lvol '{lvol_name}', "
                f"which has clusters 0-{num_clusters - 1}"
                if num_clusters
                else f"lvol '{lvol_name}' has no clusters",
            )
        found.extend(part)
    if not found:
        raise OSError(errno.EINVAL, f"no clusters of lvol '{lvol_name}' are named")
    return found


def hash_clusters(
    endpoint: Endpoint,
    algorithm: Algorithm,
    clusters: array[int],
    cluster_size: int,
    control: Control,
    *,
    threads: int = 1,
) -> array[int]:
    """The checksum of each cluster given, read now; in this thread and threads-1 more."""
    loop = ChecksumLoop(endpoint, algorithm, clusters, cluster_size, control)
    run_loop(loop, threads)
    values: array[int] = array("Q")
    values.frombytes(loop.values_bytes())
    return values


def register(
    lvol: Lvol,
    clusters: Iterable[int | range] | None = None,
    algorithm: str = "xxh3",
    *,
    rate: int = 0,
    parallel: int | None = None,
    known: ClusterChecksums | None = None,
) -> Job:
    """Computes and stores the checksums of a snapshot's owned clusters, in the background.

    clusters: indexes or ranges, None = all; a selection adds to what is registered already.
    rate: bytes per second, 0 = no limit. parallel: threads, at most 2. known: checksums that
    the caller vouches for; those clusters are not read, and the others are added to it. Nothing
    is stored unless the job completes. OSError: EPERM for a writable lvol, EROFS for a store
    opened read-only, ERANGE for a cluster past the end, EBUSY when the lvol is busy.
    """
    chosen = parse_algorithm(algorithm)
    store = lvol.store
    _check_keeps_checksums(lvol)
    wanted = select_clusters(lvol.name, lvol.num_clusters, clusters)
    held = ExitStack()
    try:
        held.enter_context(lvol.claim("checksum"))
        owned = lvol.fragmap()
        unread = owned if known is None else without(owned, known.registered)
        todo = array(
            "I",
            bits_set(unread)
            if wanted is None
            else (c for c in sorted(set(wanted)) if bit(unread, c)),
        )
        job = Job("checksum", lvol=lvol.name, lvol_uuid=lvol.uuid, destination=None)
    except BaseException:
        held.close()
        raise
    job.total = len(todo)
    job.phase = chosen
    job.control.rate = rate

    def work(job: Job) -> ChecksumTable:
        endpoint = Endpoint.of_blob(lvol.blob, f"lvol '{lvol.name}'", own_layer=True)
        found = hash_clusters(
            endpoint, chosen, todo, store.cluster_size, job.control, threads=threads_for(parallel)
        )
        gathered = known if known is not None else ClusterChecksums(lvol.num_clusters)
        gathered.note(todo, found)
        return _keep(lvol, chosen, owned, gathered)

    return registry(store).start(job, work, held)


def _check_keeps_checksums(lvol: Lvol) -> None:
    if not lvol.is_read_only:
        raise OSError(
            errno.EPERM,
            f"lvol '{lvol.name}' is writable, so checksums of it would not last; "
            "take a snapshot and register that",
        )
    if lvol.store.read_only:
        raise OSError(
            errno.EROFS, f"store '{lvol.store.name}' is open read-only; checksums cannot be kept"
        )


def add(lvol: Lvol, algorithm: str, known: ClusterChecksums) -> None:
    """Stores checksums of a snapshot's clusters that the caller vouches for, beside those that
    are registered; of clusters that it does not own none are kept. OSError as register()."""
    chosen = parse_algorithm(algorithm)
    _check_keeps_checksums(lvol)
    with lvol.claim("checksum"):
        _keep(lvol, chosen, lvol.fragmap(), known)


def _keep(lvol: Lvol, algorithm: Algorithm, owned: bytes, found: ClusterChecksums) -> ChecksumTable:
    """Stores what was found, beside what was registered before."""
    before = table(lvol, algorithm)
    if before is not None:
        older = array("I", bits_set(without(before.registered, found.registered)))
        found.note(older, (before.values[c] for c in older))
    registered = without(owned, without(owned, found.registered))
    made = make_table(algorithm, lvol.store.cluster_size, owned, registered, found.values)
    _store(lvol, made)
    return made


def _store(lvol: Lvol, made: ChecksumTable) -> None:
    with lvol.store.lock:
        updates: dict[str, bytes | None] = {
            name: None for name in lvol.metadata.xattrs if is_table_xattr(name, made.algorithm)
        }
        records = None
        if made.algorithm == "crc64":
            records = b""
            if CHECKSUM_XATTR in lvol.metadata.xattrs:
                updates[CHECKSUM_XATTR] = None
        if made.algorithm == "crc64" and made.snapshot_checksum is not None:
            records = encode_records(made.values)
            updates[CHECKSUM_XATTR] = made.snapshot_checksum.to_bytes(8, "little")
        else:
            updates.update(encode_xattrs(made))
        lvol.set_reserved_xattrs(updates, records)
    _tables.pop(lvol, None)


def stop(lvol: Lvol) -> None:
    """Asks the registration under way to end; OSError(ESRCH) if there is none."""
    job = registry(lvol.store).active("checksum", lvol.uuid)
    if job is None:
        raise OSError(errno.ESRCH, f"no checksum registration of lvol '{lvol.name}' is under way")
    job.cancel()


_tables: WeakKeyDictionary[Lvol, dict[Algorithm, tuple[object, ChecksumTable | None]]] = (
    WeakKeyDictionary()
)


# A table has two bits for each cluster, owned or not: of those of large lvols one is kept.
_MANY = 1 << 22
_large: WeakSet[Lvol] = WeakSet()
_large_lock = threading.Lock()


def table(lvol: Lvol, algorithm: str | None = None) -> ChecksumTable | None:
    """What is registered, None if nothing is (or nothing that can be believed).

    Without an algorithm: a complete table before a partial one, xxh3 before crc64.
    """
    if algorithm is not None:
        return _table(lvol, parse_algorithm(algorithm))
    found = [each for each in (_table(lvol, name) for name in ALGORITHMS) if each is not None]
    return max(
        found, key=lambda each: (each.complete, each.snapshot_checksum is not None), default=None
    )


def _table(lvol: Lvol, algorithm: Algorithm) -> ChecksumTable | None:
    xattrs = lvol.metadata.xattrs
    # A table's digest is in its summary, so the table is the same while these are.
    stamp = (
        xattrs.get(xattr_prefix(algorithm)),
        xattrs.get(CHECKSUM_XATTR) if algorithm == "crc64" else None,
        lvol.num_allocated_clusters,
        lvol.num_clusters,
    )
    cached = _tables.get(lvol, {}).get(algorithm)
    if cached is not None and cached[0] == stamp:
        return cached[1]
    found, problem = read_table(lvol, algorithm)
    if problem is not None:
        _log.warning("%s checksums of lvol %s are not used: %s", algorithm, lvol.name, problem)
    if found is not None and found.num_clusters > _MANY:
        with _large_lock:
            for other in list(_large):
                _tables.pop(other, None)
            _large.clear()
            _large.add(lvol)
    _tables.setdefault(lvol, {})[algorithm] = (stamp, found)
    return found


def read_table(lvol: Lvol, algorithm: Algorithm) -> tuple[ChecksumTable | None, str | None]:
    """(table, None), (None, None) when nothing is stored, or (None, why it is not believed)."""
    try:
        return _read_table(lvol, algorithm), None
    except CorruptTableError as problem:
        return None, str(problem)


def _read_table(lvol: Lvol, algorithm: Algorithm) -> ChecksumTable | None:
    xattrs = lvol.metadata.xattrs
    size, count = lvol.store.cluster_size, lvol.num_clusters
    raw = xattrs.get(CHECKSUM_XATTR)
    records = lvol.checksum_records
    if algorithm == "crc64" and (raw is not None or records):
        if raw is None:
            raise CorruptTableError("per-cluster checksums without the snapshot's")
        if len(raw) != 8:
            raise CorruptTableError(f"xattr {CHECKSUM_XATTR} has {len(raw)} bytes, not 8")
        checksum = int.from_bytes(raw, "little")
        owned = lvol.fragmap()
        return decode_records(records, checksum, cluster_size=size, num_clusters=count, owned=owned)
    if not any(is_table_xattr(name, algorithm) for name in xattrs):
        return None
    owned = lvol.fragmap()
    return decode_xattrs(algorithm, xattrs, cluster_size=size, num_clusters=count, owned=owned)


def verify(
    lvol: Lvol,
    algorithm: str | None = None,
    clusters: Iterable[int | range] | None = None,
    *,
    rate: int = 0,
    parallel: int | None = None,
) -> Job:
    """Reads registered clusters again and compares; the job's result is a VerifyReport.

    clusters: indexes or ranges, None = all. OSError: ENODATA when nothing is registered,
    ERANGE for a cluster past the end. A table that has only the snapshot's own checksum (older
    Longhorn) is verified as a whole: then a mismatch names every owned cluster.
    """
    found = table(lvol, algorithm)
    if found is None or (found.snapshot_checksum is None and not any(found.registered)):
        raise OSError(
            errno.ENODATA,
            f"no checksums of lvol '{lvol.name}' are registered; 'checksum register' does that",
        )
    only_whole = found.snapshot_checksum is not None and not found.complete
    selected = select_clusters(lvol.name, lvol.num_clusters, clusters)
    if selected is None or only_whole:
        todo = array("I", bits_set(found.owned if only_whole else found.registered))
        missing = 0 if only_whole else count_bits(found.owned) - len(todo)
    else:
        owned = [c for c in sorted(set(selected)) if bit(found.owned, c)]
        todo = array("I", (c for c in owned if bit(found.registered, c)))
        missing = len(owned) - len(todo)
    held = ExitStack()
    held.enter_context(lvol.claim("verify"))
    job = Job("verify", lvol=lvol.name, lvol_uuid=lvol.uuid, destination=None)
    job.total = len(todo)
    job.phase = found.algorithm
    job.control.rate = rate
    size = lvol.store.cluster_size

    def work(job: Job) -> VerifyReport:
        endpoint = Endpoint.of_blob(lvol.blob, f"lvol '{lvol.name}'", own_layer=True)
        values = hash_clusters(
            endpoint, found.algorithm, todo, size, job.control, threads=threads_for(parallel)
        )
        bad = _mismatches(found, todo, values, only_whole=only_whole)
        return VerifyReport(found.algorithm, len(todo), missing, bad)

    return registry(lvol.store).start(job, work, held)


def _mismatches(
    found: ChecksumTable, todo: Sequence[int], values: array[int], *, only_whole: bool
) -> list[int]:
    if not only_whole:
        return [c for c, value in zip(todo, values, strict=True) if value != found.values[c]]
    all_values = zero_values(found.num_clusters)
    for cluster, value in zip(todo, values, strict=True):
        all_values[cluster] = value
    again = make_table(
        found.algorithm,
        found.cluster_size,
        found.owned,
        found.owned,
        all_values,
    )
    return [] if again.snapshot_checksum == found.snapshot_checksum else list(todo)
