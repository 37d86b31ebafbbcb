"""How long the tests that `make torture` makes long are to run."""

import os

import pytest

SECONDS = float(os.environ.get("LVOLFS_TORTURE_SECONDS", "0"))

only = pytest.mark.skipif(not SECONDS, reason="for make torture: LVOLFS_TORTURE_SECONDS is not set")
