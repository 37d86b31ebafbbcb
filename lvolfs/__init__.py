"""SPDK logical volume stores as files, with delta replica rebuild."""

from lvolfs.lvstore.lvol import Lvol, LvolNotFound
from lvolfs.lvstore.store import DamagedBlob, Lvstore

__version__ = "0.1.0"

__all__ = ["DamagedBlob", "Lvol", "LvolNotFound", "Lvstore", "__version__"]
