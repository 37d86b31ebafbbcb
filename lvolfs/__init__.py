"""SPDK logical volume stores as files, with delta replica rebuild."""

__version__ = "0.1.0"
