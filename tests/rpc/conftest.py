"""Daemons without a mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rpc.serve_command import ServeCommand


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[ServeCommand]:
    it = ServeCommand(tmp_path)
    yield it
    it.end()
