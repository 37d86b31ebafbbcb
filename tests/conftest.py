"""What tests have to be told of the machine, wherever they are."""

import pytest

from tests import needs

# Of tests/mount and tests/cli; what makes a mount without them says so itself.
MOUNTING_FIXTURES = {"make_mounted", "mount"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not MOUNTING_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(needs.fuse)
