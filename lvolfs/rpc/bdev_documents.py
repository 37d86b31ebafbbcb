"""Base devices and lvols as SPDK's bdev_get_bdevs and bdev_get_iostat describe them."""

from typing import Any

from lvolfs.delta.jobs import registry
from lvolfs.lvstore.external import external_clones
from lvolfs.lvstore.lvol import Lvol
from lvolfs.rpc.base_bdevs import BaseBdev
from lvolfs.rpc.target import Target

EXCLUSIVE_WRITE = "exclusive_write"
READ_MANY_WRITE_NONE = "read_many_write_none"
READ_MANY_WRITE_ONE = "read_many_write_one"

_PRODUCTS = {"aio": "AIO disk", "uring": "URING bdev", "malloc": "Malloc disk"}
_IO_TYPES = (
    "read",
    "write",
    "unmap",
    "flush",
    "reset",
    "nvme_admin",
    "nvme_io",
    "nvme_io_md",
    "write_zeroes",
    "zcopy",
    "get_zone_info",
    "zone_management",
    "zone_append",
    "compare",
    "compare_and_write",
    "abort",
    "seek_hole",
    "seek_data",
    "copy",
    "nvme_iov_md",
)
_NO_LIMITS = {
    "rw_ios_per_sec": 0,
    "rw_mbytes_per_sec": 0,
    "r_mbytes_per_sec": 0,
    "w_mbytes_per_sec": 0,
}


def claim_of(target: Target, bdev: BaseBdev) -> str | None:
    """What keeps others from writing to a base device: a store, clones of it, a copy to it."""
    if target.store_on(bdev) is not None:
        return EXCLUSIVE_WRITE
    if any(external_clones(store, bdev.uuid) for store in target.stores):
        return READ_MANY_WRITE_NONE
    for store in target.stores:
        for job in registry(store).list():
            if job.kind == "copy" and job.destination == bdev.path and not job.finished:
                return READ_MANY_WRITE_ONE
    return None


def _describe(
    *,
    name: str,
    alias: str,
    product: str,
    block_size: int,
    num_blocks: int,
    uuid: str,
    creation_time: str,
    claim: str | None,
    io_types: set[str],
    driver_specific: dict[str, Any],
) -> dict[str, Any]:
    claimed: dict[str, Any] = {"claimed": claim is not None}
    if claim is not None:
        claimed["claim_type"] = claim
    return {
        "name": name,
        "aliases": [alias],
        "product_name": product,
        "block_size": block_size,
        "num_blocks": num_blocks,
        "uuid": uuid,
        "creation_time": creation_time,
        "assigned_rate_limits": dict(_NO_LIMITS),
        **claimed,
        "zoned": False,
        "supported_io_types": {each: each in io_types for each in _IO_TYPES},
        "driver_specific": driver_specific,
    }


def base_bdev_document(target: Target, bdev: BaseBdev) -> dict[str, Any]:
    io_types = {"read"} if bdev.kind == "uring" else {"read", "flush", "reset"}
    if not bdev.read_only:
        io_types |= {"write", "write_zeroes"}
        if bdev.fallocate or bdev.kind == "malloc":
            io_types.add("unmap")
    driver: dict[str, Any] = {}
    if bdev.kind == "aio":
        driver["aio"] = {
            "filename": bdev.path,
            "block_size_override": bdev.block_size_given,
            "readonly": bdev.read_only,
            "fallocate": bdev.fallocate,
        }
    elif bdev.kind == "uring":
        driver["uring"] = {"filename": bdev.path}
    return _describe(
        name=bdev.name,
        alias=bdev.uuid,
        product=_PRODUCTS[bdev.kind],
        block_size=bdev.block_size,
        num_blocks=bdev.num_blocks,
        uuid=bdev.uuid,
        creation_time="",
        claim=claim_of(target, bdev),
        io_types=io_types,
        driver_specific=driver,
    )


def by_creation(lvols: list[Lvol]) -> list[Lvol]:
    """SPDK lists lvols in the order in which they were made."""
    return sorted(lvols, key=lambda lvol: (lvol.creation_time, lvol.id))


def _claim_of_lvol(target: Target, lvol: Lvol) -> str | None:
    if lvol.busy == "copy" and lvol.writers:
        return READ_MANY_WRITE_ONE
    others = (store for store in target.stores if store is not lvol.store)
    if any(external_clones(store, lvol.uuid) for store in others):
        return READ_MANY_WRITE_NONE
    return None


def lvol_bdev_document(target: Target, lvol: Lvol) -> dict[str, Any]:
    store = lvol.store
    io_types = {"read", "flush", "reset", "seek_hole", "seek_data"}
    if not lvol.is_read_only:
        io_types |= {"write", "unmap", "write_zeroes"}
    driver: dict[str, Any] = {
        "lvol_store_uuid": store.uuid,
        "base_bdev": target.base_bdev_of(store),
        "thin_provision": lvol.is_thin,
        "num_allocated_clusters": lvol.num_allocated_clusters,
        "snapshot": lvol.is_snapshot,
        "clone": lvol.is_clone,
    }
    if lvol.parent is not None:
        driver["base_snapshot"] = lvol.parent.name
    if lvol.is_snapshot:
        driver["clones"] = [child.name for child in by_creation(lvol.children)]
    driver["esnap_clone"] = lvol.is_external_clone
    if lvol.external_id is not None:
        driver["external_snapshot_name"] = lvol.external_id
    return _describe(
        name=lvol.uuid,
        alias=f"{store.name}/{lvol.name}",
        product="Logical Volume",
        block_size=store.block_size,
        num_blocks=lvol.size // store.block_size,
        uuid=lvol.uuid,
        creation_time=lvol.creation_time,
        claim=_claim_of_lvol(target, lvol),
        io_types=io_types,
        driver_specific={"lvol": driver},
    )
