"""Importing this fills the method table."""

from lvolfs.rpc import (
    bdev_methods,
    check_methods,
    checksum_methods,
    copy_methods,
    framework_methods,
    iostat_methods,
    job_methods,
    lvol_methods,
    lvstore_methods,
    mount_methods,
    rebuild_methods,
    repair_methods,
    replica_methods,
)

__all__ = [
    "bdev_methods",
    "check_methods",
    "checksum_methods",
    "copy_methods",
    "framework_methods",
    "iostat_methods",
    "job_methods",
    "lvol_methods",
    "lvstore_methods",
    "mount_methods",
    "rebuild_methods",
    "repair_methods",
    "replica_methods",
]
