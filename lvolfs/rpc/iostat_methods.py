"""What I/O was counted, and how long it took: bdev_get_iostat, bdev_reset_iostat."""

import errno
import os
import time
from typing import Annotated, Any, Literal

import pydantic

from lvolfs.lvstore.lvol import Lvol
from lvolfs.rpc.base_bdevs import BaseBdev
from lvolfs.rpc.bdev_methods import all_bdevs, named_bdev
from lvolfs.rpc.errors import ERRNO_CODE, RpcError
from lvolfs.rpc.table import method
from lvolfs.rpc.target import Target

TICK_RATE = 1_000_000_000
"""Ticks are nanoseconds."""

MAX_NAMES = 1024
CHANNEL = 1
"""All threads count together: there is one channel."""

ResetMode = Literal["all", "maxmin", "error", "none"]
_PAST = {"read": "read", "write": "written", "unmap": "unmapped", "copy": "copied"}


def _members(target: Target, found: BaseBdev | Lvol, reset_mode: ResetMode) -> dict[str, Any]:
    if isinstance(found, Lvol):
        return _of_lvol(found, reset_mode)
    return _of_device(target, found, reset_mode)


def _of_lvol(lvol: Lvol, reset_mode: ResetMode) -> dict[str, Any]:
    stats: dict[str, Any] = {**lvol.blob.io_stats, "copy": _NO_COPIES}
    if reset_mode != "none":
        lvol.blob.reset_io_stats(reset_mode)
    members: dict[str, Any] = {}
    for kind, past in _PAST.items():
        members[f"bytes_{past}"] = stats[kind]["bytes"]
        members[f"num_{kind}_ops"] = stats[kind]["ops"]
    for kind in _PAST:
        members[f"{kind}_latency_ticks"] = stats[kind]["ticks"]
        members[f"max_{kind}_latency_ticks"] = stats[kind]["slowest"]
        members[f"min_{kind}_latency_ticks"] = stats[kind]["quickest"]
    errors = {
        name: sum(stats[kind][name] for kind in ("read", "write", "unmap"))
        for name in ("nomem", "failed")
    }
    return {**members, "io_error": {name: count for name, count in errors.items() if count}}


# There is no request that copies.
_NO_COPIES = dict.fromkeys(("ops", "bytes", "ticks", "slowest", "quickest", "failed", "nomem"), 0)


def _of_device(target: Target, bdev: BaseBdev, reset_mode: ResetMode) -> dict[str, Any]:
    """What the store on the device did to it; without times, which are not taken there. One
    without a store is not used by the data path of this process."""
    store = target.store_on(bdev)
    counted: dict[str, int] = {}
    if store is not None:
        counted = target.device_counters.since_reset(bdev.uuid, store.engine.device)
        if reset_mode in ("all", "error"):
            only = ("errors",) if reset_mode == "error" else tuple(counted)
            target.device_counters.reset(bdev.uuid, store.engine.device, only)
    names = {"read": "reads", "write": "writes", "unmap": "discards"}
    members: dict[str, Any] = {}
    for kind, past in _PAST.items():
        amount = "bytes_discarded" if kind == "unmap" else f"bytes_{past}"
        members[f"bytes_{past}"] = counted.get(amount, 0)
        members[f"num_{kind}_ops"] = counted.get(names.get(kind, ""), 0)
    failed = counted.get("errors", 0)
    return {**members, "io_error": {"failed": failed} if failed else {}}


def _name(found: BaseBdev | Lvol) -> str:
    return found.uuid if isinstance(found, Lvol) else found.name


def _find(target: Target, name: str) -> BaseBdev | Lvol:
    found = named_bdev(target, name)
    if found is None:
        raise RpcError.no_such_device(f"there is no bdev {name!r}")
    return found


@method("bdev_get_iostat", failure_code=ERRNO_CODE)
def get_iostat(
    target: Target,
    *,
    name: str | None = None,
    per_channel: bool = False,
    reset_mode: ResetMode = "none",
    names: Annotated[list[str], pydantic.Field(max_length=MAX_NAMES)] | None = None,
) -> dict[str, Any]:
    """Since the store was opened, or the last reset; ticks are nanoseconds. name or names: else
    all. per_channel: of one bdev; all threads count in one channel. reset_mode: what begins anew
    after it was told: all, maxmin (the slowest and quickest), error (failures)."""
    if name is not None and names is not None:
        raise _invalid("give name or names, not both")
    if name is not None:
        names = [name]
    if per_channel and (names is None or len(names) != 1):
        raise _invalid("per_channel is for one bdev: name it")
    found = all_bdevs(target) if names is None else [_find(target, each) for each in names]
    told = {"tick_rate": TICK_RATE, "ticks": time.monotonic_ns()}
    if per_channel:
        channel = {"thread_id": CHANNEL, **_members(target, found[0], reset_mode)}
        return {**told, "name": _name(found[0]), "channels": [channel]}
    return {
        **told,
        "bdevs": [{"name": _name(each), **_members(target, each, reset_mode)} for each in found],
    }


def _invalid(detail: str) -> RpcError:
    return RpcError(-errno.EINVAL, os.strerror(errno.EINVAL), detail=detail, number=errno.EINVAL)


@method("bdev_reset_iostat", failure_code=ERRNO_CODE)
def reset_iostat(target: Target, *, name: str | None = None, mode: ResetMode = "all") -> bool:
    """Of one bdev or all: begins anew what bdev_get_iostat tells. mode: as its reset_mode."""
    for each in all_bdevs(target) if name is None else [_find(target, name)]:
        if mode != "none":
            _members(target, each, mode)
    return True
