"""SPDK logical volume stores as files, with delta replica rebuild."""

from lvolfs.delta import starting
from lvolfs.delta.checksum_table import ChecksumTable
from lvolfs.delta.diff import DiffReport, diff
from lvolfs.delta.jobs import Job
from lvolfs.delta.rebuild import rebuild
from lvolfs.delta.rebuild_report import RebuildReport
from lvolfs.lvstore.lvol import Lvol, LvolNotFound
from lvolfs.lvstore.store import DamagedBlob, Lvstore

assert starting  # importing it lets lvols start checksums and copies

__version__ = "0.1.0"

__all__ = [
    "ChecksumTable",
    "DamagedBlob",
    "DiffReport",
    "Job",
    "Lvol",
    "LvolNotFound",
    "Lvstore",
    "RebuildReport",
    "__version__",
    "diff",
    "rebuild",
]
