"""Mounts, as the tests of `tests/mount` have them."""

from tests.mount.conftest import fuse_over_io_uring, make_mounted, transport

__all__ = ["fuse_over_io_uring", "make_mounted", "transport"]
