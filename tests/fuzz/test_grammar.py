"""The target `requests` leaves nothing out: every ioctl and every xattr is sent, right and wrong.

A fixed seed makes the inputs, so what is seen here is what the fuzzers start from.
"""

import itertools
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lvolfs import ioctls
from lvolfs.delta import jobs
from lvolfs.mount import ioctl_calls, xattrs
from tests.fuzz.requests import Requests

INPUTS = 3000
HEADER = ioctls.include_directory() / "lvolfs.h"
REQUEST = re.compile(r"#define LVOLFS_IOC_(\w+) _IOWR\(LVOLFS_IOC_MAGIC, (\d+), struct (\w+)\)")
ALWAYS_WELL = {"Info"}

Seen = set[tuple[str, str, bool]]


def recorded(
    seen: Seen, what: str, name: Callable[..., str], function: Callable[..., Any]
) -> Callable[..., Any]:
    """`function`, with (what, name of the arguments, whether it went well) added to `seen`."""

    def call(*arguments: Any) -> Any:
        try:
            answer = function(*arguments)
        except OSError:
            seen.add((what, name(*arguments), False))
            raise
        seen.add((what, name(*arguments), True))
        return answer

    return call


def late(function: Callable[..., None]) -> Callable[..., None]:
    """Jobs on small stores end before a request could stop them; so they begin later."""

    def call(*arguments: Any) -> None:
        time.sleep(0.005)
        function(*arguments)

    return call


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    found: Seen = set()

    def xattr_name(_: object, name: bytes, *_rest: object) -> str:
        return name.decode(errors="replace").removeprefix(xattrs.PREFIX)

    def parsed(request: int, _: bytes) -> str:
        return ioctls.ARGUMENTS[request].__name__ if request in ioctls.ARGUMENTS else "unknown"

    with pytest.MonkeyPatch.context() as patch:
        for module, what, name in (
            (ioctl_calls, "parse", parsed),
            (ioctl_calls, "perform", lambda _, argument: type(argument).__name__),
            (xattrs, "read", xattr_name),
            (xattrs, "write", xattr_name),
            (xattrs, "remove", xattr_name),
        ):
            patch.setattr(module, what, recorded(found, what, name, getattr(module, what)))
        # The inputs guess small ones, and other tests of this process have had jobs.
        patch.setattr(jobs, "_next_id", itertools.count(1))
        patch.setattr(jobs.JobRegistry, "_run", late(jobs.JobRegistry._run))
        target = Requests(tmp_path_factory.mktemp("grammar"))
        chance = random.Random(1)
        for _ in range(INPUTS):
            target.run(chance.randbytes(chance.randrange(1, 400)))
        target.close()
    return found


def test_the_python_side_knows_every_ioctl_of_the_header() -> None:
    declared = {int(number) for _, number, _ in REQUEST.findall(HEADER.read_text())}
    assert len(declared) == HEADER.read_text().count("#define LVOLFS_IOC_") - 1
    assert declared == {kind.NUMBER for kind in ioctls.ARGUMENTS.values()}


@pytest.mark.parametrize("kind", [kind.__name__ for kind in ioctls.ARGUMENTS.values()])
def test_every_ioctl_is_sent(seen: Seen, kind: str) -> None:
    assert ("parse", kind, False) in seen, "never malformed"
    assert ("perform", kind, True) in seen, "never with success"
    assert ("perform", kind, False) in seen or kind in ALWAYS_WELL, "never refused"


def test_unknown_ioctls_are_sent(seen: Seen) -> None:
    assert ("parse", "unknown", False) in seen


@pytest.mark.parametrize("name", xattrs.READABLE)
def test_every_readable_xattr_is_read(seen: Seen, name: str) -> None:
    """And written, which is refused."""
    assert ("read", name, True) in seen
    assert ("write", name, False) in seen
    assert ("remove", name, False) in seen


@pytest.mark.parametrize("name", xattrs.WRITABLE)
def test_every_writable_xattr_is_written(seen: Seen, name: str) -> None:
    """With success, without, and read, which finds nothing."""
    assert ("write", name, True) in seen
    assert ("write", name, False) in seen
    assert ("read", name, False) in seen


def documented(heading: str) -> set[str]:
    """The names in the first column of the table with this heading in docs/interface.md."""
    text = (Path(__file__).parents[2] / "docs" / "interface.md").read_text()
    table = text[text.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    return {name for row in table for name in re.findall(r"`([a-z_.]+)`", row.split("|")[1])}


def test_the_documented_xattrs_are_those() -> None:
    assert documented("| read | value |") == xattrs.READABLE.keys()
    assert documented("| write | on | value |") == xattrs.WRITABLE.keys()


def test_xattrs_of_their_own_names_are_sent(seen: Seen) -> None:
    for what in ("read", "write", "remove"):
        assert {(what, "user.x", True), (what, "security.selinux", False)} <= seen
