"""What each ioctl of lvolfs.h does. Called in a thread, with a checked structure to fill."""

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvolfs import ioctls
from lvolfs.delta import checksums
from lvolfs.delta.checksum_table import ChecksumTable
from lvolfs.delta.jobs import Job
from lvolfs.lvstore.lvol import Lvol
from lvolfs.mount import operations

_ALGORITHM_NUMBERS = {name: number for number, name in ioctls.ALGORITHMS.items()}
_STATE_NUMBERS = {name: number for number, name in ioctls.STATES.items()}


@dataclass(frozen=True)
class Caller:
    """On which file of the mount, whether by its owner or root, and by which process."""

    lvol: Lvol
    owner: bool
    mountpoint: str
    pid: int


def _text(text: str | None, room: int) -> bytes:
    """A C string that fits with its NUL; a longer one is cut."""
    return os.fsencode(text or "")[: room - 1]


def _require_snapshot(lvol: Lvol) -> None:
    if not lvol.is_snapshot:
        raise OSError(errno.EINVAL, f"lvol '{lvol.name}' is no snapshot")


def _table(lvol: Lvol) -> ChecksumTable:
    _require_snapshot(lvol)
    table = checksums.table(lvol)
    if table is None:
        raise OSError(errno.ENODATA, f"no checksums of '{lvol.name}' are registered")
    return table


def _page(lvol: Lvol, start: int, count: int, most: int) -> int:
    """How many clusters of start..start+count-1 one call covers."""
    if count == 0:
        raise OSError(errno.EINVAL, "count is 0")
    operations.check_clusters([range(start, start + count)], lvol)
    return min(count, most)


def _name(raw: bytes) -> str:
    if len(raw) >= ioctls.NAME_SIZE:
        raise OSError(errno.EINVAL, "the name has no NUL at its end")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EINVAL, f"name {raw!r} is not UTF-8") from None


def info(caller: Caller, argument: ioctls.Info) -> None:
    lvol = caller.lvol
    argument.bytes = lvol.size
    argument.num_clusters = lvol.num_clusters
    argument.num_allocated_clusters = lvol.num_allocated_clusters
    argument.cluster_size = lvol.store.cluster_size
    argument.type = ioctls.SNAPSHOT if lvol.is_snapshot else ioctls.VOLUME
    argument.properties = (
        (ioctls.THIN if lvol.is_thin else 0)
        | (ioctls.READ_ONLY if lvol.is_read_only or lvol.is_snapshot else 0)
        | (ioctls.CLONE if lvol.parent is not None else 0)
        | (ioctls.EXTERNAL_CLONE if lvol.is_external_clone else 0)
        | (ioctls.DEGRADED if lvol.degraded else 0)
    )
    argument.num_children = len(lvol.children)
    argument.uuid = lvol.uuid.encode()
    argument.name = _text(lvol.name, ioctls.NAME_SIZE)
    parent = lvol.parent.name if lvol.parent is not None else lvol.external_id
    argument.parent = _text(parent, ioctls.NAME_SIZE)


def snapshot(caller: Caller, argument: ioctls.Snapshot) -> None:
    if caller.lvol.is_snapshot:
        raise OSError(errno.EINVAL, f"'{caller.lvol.name}' is a snapshot; clone it first")
    argument.uuid = caller.lvol.snapshot(_name(argument.name)).uuid.encode()


def clone(caller: Caller, argument: ioctls.Clone) -> None:
    _require_snapshot(caller.lvol)
    argument.uuid = caller.lvol.clone(_name(argument.name)).uuid.encode()


def checksum_register(caller: Caller, argument: ioctls.ChecksumRegister) -> None:
    algorithm = ioctls.ALGORITHMS.get(argument.algorithm or ioctls.XXH3)
    if algorithm is None:
        raise OSError(errno.EINVAL, f"there is no checksum algorithm {argument.algorithm}")
    clusters = None
    if argument.count:
        clusters = [range(argument.start, argument.start + argument.count)]
        operations.check_clusters(clusters, caller.lvol)
    elif argument.start:
        raise OSError(errno.EINVAL, "count 0 means all clusters; start must be 0 then")
    argument.id = operations.register_checksums(caller.lvol, clusters, algorithm).id


def checksum_status(caller: Caller, argument: ioctls.ChecksumStatus) -> None:
    _require_snapshot(caller.lvol)
    job = operations.latest_job(caller.lvol, "checksum")
    table = checksums.table(caller.lvol)
    if table is not None:
        argument.algorithm = _ALGORITHM_NUMBERS[table.algorithm]
    if job is not None and (table is None or job.state != "complete"):
        argument.state = _STATE_NUMBERS[job.state]
        argument.done = job.done
        argument.total = job.total
        argument.error = _text(job.error, ioctls.TEXT_SIZE)
    elif table is not None:
        argument.state = ioctls.STATE_COMPLETE
        argument.done = table.num_registered
        argument.total = table.num_owned
    else:
        raise OSError(errno.ENODATA, f"no checksums of '{caller.lvol.name}' are registered")


def checksum_get(caller: Caller, argument: ioctls.ChecksumGet) -> None:
    table = _table(caller.lvol)
    if table.snapshot_checksum is None:
        raise OSError(errno.ENODATA, f"only some clusters of '{caller.lvol.name}' are registered")
    argument.checksum = table.snapshot_checksum
    argument.algorithm = _ALGORITHM_NUMBERS[table.algorithm]


def checksum_range(caller: Caller, argument: ioctls.ChecksumRange) -> None:
    table = _table(caller.lvol)
    argument.count = _page(caller.lvol, argument.start, argument.count, ioctls.RANGE_CLUSTERS)
    argument.algorithm = _ALGORITHM_NUMBERS[table.algorithm]
    for position in range(argument.count):
        cluster = argument.start + position
        value = table.checksum(cluster)
        if table.state(cluster) == "unwritten":
            argument.state[position] = ioctls.CLUSTER_UNWRITTEN
        elif value is None:
            argument.state[position] = ioctls.CLUSTER_UNREGISTERED
        else:
            argument.state[position] = ioctls.CLUSTER_WRITTEN
            argument.checksum[position] = value


def fragmap(caller: Caller, argument: ioctls.Fragmap) -> None:
    count = _page(caller.lvol, argument.start, argument.count, ioctls.FRAGMAP_BYTES * 8)
    bitmap = caller.lvol.fragmap(argument.start, count)
    argument.count = count
    argument.allocated = int.from_bytes(bitmap, "little").bit_count()
    argument.bits[: len(bitmap)] = bitmap


def copy_start(caller: Caller, argument: ioctls.CopyStart) -> None:
    everything = bool(argument.flags & ioctls.COPY_ALL)
    deep = bool(argument.flags & ioctls.COPY_DEEP)
    if deep and not everything:
        raise OSError(errno.EINVAL, "a deep copy copies all clusters: set LVOLFS_COPY_ALL, too")
    if everything == bool(argument.num_clusters) or argument.num_clusters > ioctls.COPY_CLUSTERS:
        raise OSError(
            errno.EINVAL, f"list 1 to {ioctls.COPY_CLUSTERS} clusters, or set LVOLFS_COPY_ALL"
        )
    if len(argument.destination) >= ioctls.DESTINATION_SIZE:
        raise OSError(errno.EINVAL, "the destination has no NUL at its end")
    clusters = None
    if not everything:
        listed = argument.clusters[: argument.num_clusters]
        clusters = [range(cluster, cluster + 1) for cluster in listed]
        operations.check_clusters(clusters, caller.lvol)
    argument.id = operations.start_copy(
        caller.lvol,
        caller.mountpoint,
        os.fsdecode(argument.destination),
        clusters,
        deep=deep,
        pid=caller.pid,
    ).id


def _copy(caller: Caller, job_id: int) -> Job:
    if job_id:
        return operations.find_copy(caller.lvol.store, job_id)
    job = operations.latest_job(caller.lvol, "copy")
    if job is None:
        raise OSError(errno.ENODATA, f"lvol '{caller.lvol.name}' has not been copied yet")
    return job


def copy_status(caller: Caller, argument: ioctls.CopyStatus) -> None:
    job = _copy(caller, argument.id)
    argument.id = job.id
    argument.state = _STATE_NUMBERS[job.state]
    argument.total = job.total
    argument.copied = job.copied
    argument.unmapped = job.unmapped
    argument.bytes = job.bytes
    argument.error = _text(job.error, ioctls.TEXT_SIZE)


def copy_cancel(caller: Caller, argument: ioctls.CopyCancel) -> None:
    _copy(caller, argument.id).cancel()


# Members that callers fill in; whatever else is not 0 on the way in is a mistake of theirs.
_INPUTS: dict[type[ioctls.Argument], frozenset[str]] = {
    ioctls.Snapshot: frozenset({"name"}),
    ioctls.Clone: frozenset({"name"}),
    ioctls.ChecksumRegister: frozenset({"start", "count", "algorithm"}),
    ioctls.ChecksumRange: frozenset({"start", "count"}),
    ioctls.Fragmap: frozenset({"start", "count"}),
    ioctls.CopyStart: frozenset({"num_clusters", "destination", "clusters"}),
    ioctls.CopyStatus: frozenset({"id"}),
    ioctls.CopyCancel: frozenset({"id"}),
}

_CALLS: dict[type[ioctls.Argument], tuple[Callable[[Caller, Any], None], bool]] = {
    # Structure: what it does, and whether that is for the owner only.
    ioctls.Info: (info, False),
    ioctls.Snapshot: (snapshot, True),
    ioctls.Clone: (clone, True),
    ioctls.ChecksumRegister: (checksum_register, True),
    ioctls.ChecksumStatus: (checksum_status, False),
    ioctls.ChecksumGet: (checksum_get, False),
    ioctls.ChecksumRange: (checksum_range, False),
    ioctls.Fragmap: (fragmap, False),
    ioctls.CopyStart: (copy_start, True),
    ioctls.CopyStatus: (copy_status, False),
    ioctls.CopyCancel: (copy_cancel, True),
}


def parse(request: int, data: bytes) -> ioctls.Argument:
    """The structure of a request, checked. OSError ENOTTY for an unknown one, else EINVAL."""
    kind = ioctls.ARGUMENTS.get(request)
    if kind is None:
        raise OSError(errno.ENOTTY, f"there is no ioctl {request:#x}")
    argument = kind.from_buffer_copy(data)
    if argument.size != len(data):
        raise OSError(errno.EINVAL, f"size is {argument.size}, not {len(data)}")
    if argument.flags & ~kind.FLAGS:
        raise OSError(errno.EINVAL, f"flags {argument.flags:#x} are not known")
    for member in kind._fields_:
        if member[0] in {"reserved", "reserved0"}:
            place = getattr(kind, member[0])
            if any(data[place.offset : place.offset + place.size]):
                raise OSError(errno.EINVAL, f"{member[0]} is not 0")
    return argument


def perform(caller: Caller, argument: ioctls.Argument) -> bytes:
    """Does it; returns the structure as it goes back, with nothing of the caller's in what is
    only for answers."""
    call, owner_only = _CALLS[type(argument)]
    if owner_only and not caller.owner:
        raise OSError(errno.EPERM, "this is for the owner of the mount and root")
    inputs = _INPUTS.get(type(argument), frozenset())
    for member in type(argument)._fields_:
        name = member[0]
        if name not in inputs and name not in {"size", "flags", "reserved", "reserved0"}:
            place = getattr(type(argument), name)
            ctypes.memset(ctypes.addressof(argument) + place.offset, 0, place.size)
    call(caller, argument)
    return bytes(argument)
