"""Whether a state after a power cut is one that the contract allows."""

from __future__ import annotations

from collections.abc import Sequence

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.crash.life import Life, Step
from tests.crash.spdk_view import spdk_view
from tests.crash.view import View, view_of
from tests.crash.write_log import SECTOR, Disk
from tests.spdk_recovery import NotRecoverableError


class ContractBrokenError(AssertionError):
    pass


def check_state(disk: Disk, life: Life, last_mark: int) -> None:
    """Opens the store that the disk shows, and compares with what was promised.

    Whatever the cut: the store opens, no lvol is lost or damaged, no cluster is lost or used
    twice, everything flushed is there, and a snapshot is what it was. SPDK's replay finds the
    same in what the cut has left. Raises ContractBrokenError.
    """
    begun, ended = _steps_at(last_mark)
    path = str(disk.path)
    if life.steps[0].text == "format" and ended < 0:
        _check_unfinished_format(path, life)
        return
    try:
        spdk = spdk_view(disk.map, life.externals)
    except NotRecoverableError as error:
        raise ContractBrokenError(f"SPDK's replay: {error}") from error
    errors = [finding for finding in check_store(path) if finding.severity == "error"]
    if errors:
        raise ContractBrokenError(f"as left by the cut: {errors}")
    with Lvstore.open(path, external_snapshots=life.externals) as store:
        if store.damaged:
            raise ContractBrokenError(f"damaged: {store.damaged}")
        seen = view_of(store)
    findings = check_store(path)
    if findings:
        raise ContractBrokenError(f"after opening and closing it: {findings}")
    difference = spdk.difference(seen)
    if difference:
        raise ContractBrokenError(f"SPDK's replay: {difference}")
    problems = []
    for before_it in (False, True):
        problem = _compare(seen, life.steps, begun, ended, before_it)
        if problem is None:
            return
        problems.append(problem)
    raise ContractBrokenError("; or ".join(problems))


def _steps_at(last_mark: int) -> tuple[int, int]:
    """The last step that has begun, and the last that has ended."""
    begun = last_mark // 2
    return begun, begun if last_mark % 2 else begun - 1


def _check_unfinished_format(path: str, life: Life) -> None:
    """There is no store yet, or one without lvols, or what the format has left of an old one."""
    try:
        store = Lvstore.open(path, read_only=True)
    except OSError:
        return
    with store:
        # Its own blob counts as one until the superblock names it.
        if life.geometry.base == "unmade" and any(lvol.size for lvol in store.lvols):
            raise ContractBrokenError(f"a store that is being made has lvols: {store.lvols}")


def _compare(
    seen: View, steps: Sequence[Step], begun: int, ended: int, before_it: bool
) -> str | None:
    """What contradicts the contract. before_it: a step under way has not happened yet."""
    begun, ended = max(begun, 0), max(ended, 0)
    under_way = begun > ended
    durable = max(n for n in range(ended + 1) if steps[n].durable)
    happened = ended if before_it or not under_way else begun
    expected = steps[happened].view
    if seen.name != expected.name:
        return f"after {steps[happened].text!r}: the store's name is {seen.name}"
    if seen.shapes != expected.shapes:
        return f"after {steps[happened].text!r}: {_other_shape(seen, expected)}"
    # A change of shape makes durable what came before it, and is itself whole.
    first = happened if under_way and not before_it and steps[begun].shape else durable
    last = begun if under_way and not steps[begun].shape else happened
    for name, content in seen.contents.items():
        problem = _disallowed(content, name, [steps[n].view for n in range(first, last + 1)])
        if problem:
            return f"after {steps[happened].text!r}, of {name}: {problem}"
    return None


def _other_shape(seen: View, expected: View) -> str:
    for name in sorted(seen.shapes.keys() | expected.shapes.keys()):
        now, then = seen.shapes.get(name), expected.shapes.get(name)
        if now != then:
            return f"lvol {name} is {now}, and not {then}"
    return "the shapes differ"


def _disallowed(content: bytes, name: str, views: Sequence[View]) -> str | None:
    """The first sector that shows none of the views, bit for bit."""
    candidates: list[bytes] = []
    for view in views:
        candidate = view.contents.get(name)
        if candidate is None or any(candidate is other for other in candidates):
            continue
        if content == candidate:
            return None
        candidates.append(candidate)
    for at in range(0, len(content), SECTOR):
        shown = content[at : at + SECTOR]
        if not any(candidate[at : at + SECTOR] == shown for candidate in candidates):
            choices = sorted({_number(candidate[at : at + SECTOR]) for candidate in candidates})
            return f"sector {at // SECTOR} shows {_number(shown)}, and not one of {choices}"
    return None


def _number(sector: bytes) -> str:
    """Which write it shows."""
    first = sector[:8]
    if sector != first * (SECTOR // 8):
        return "a torn sector"
    return f"write {int.from_bytes(first, 'little')}"
