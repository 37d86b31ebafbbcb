"""SPDK logical volume stores as files, with delta replica rebuild."""
