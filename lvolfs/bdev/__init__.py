"""Where clusters can be copied to: another lvol, a file, a block device, an NBD export."""

from lvolfs.bdev.destination import Destination
from lvolfs.bdev.resolve import open_destination

__all__ = ["Destination", "open_destination"]
