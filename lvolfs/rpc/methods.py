"""Importing this fills the method table."""

from lvolfs.rpc import (
    checksum_methods,
    copy_methods,
    job_methods,
    lvol_methods,
    lvstore_methods,
    repair_methods,
    replica_methods,
)

__all__ = [
    "checksum_methods",
    "copy_methods",
    "job_methods",
    "lvol_methods",
    "lvstore_methods",
    "repair_methods",
    "replica_methods",
]
