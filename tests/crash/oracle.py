"""Whether a state after a power cut is one that the contract allows."""

from __future__ import annotations

from array import array
from pathlib import Path

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore
from tests.crash.history import History, View, view_of


class ContractBrokenError(AssertionError):
    pass


def check_state(path: Path, history: History, last_mark: int) -> None:
    """Opens the store at `path` as it was left, and compares with what was promised.

    Whatever the cut: the store opens, no lvol is lost or damaged, no cluster is lost or used
    twice, everything flushed is there, and a snapshot is what it was.
    """
    errors = [finding for finding in check_store(str(path)) if finding.severity == "error"]
    if errors:
        raise ContractBrokenError(f"as left by the cut: {errors}")
    with Lvstore.open(str(path)) as store:
        if store.damaged:
            raise ContractBrokenError(f"damaged: {store.damaged}")
        seen = view_of(store)
    findings = check_store(str(path))
    if findings:
        raise ContractBrokenError(f"after opening and closing it: {findings}")
    problems = []
    for before_it in (False, True):
        problem = _compare(seen, history, last_mark, before_it)
        if problem is None:
            return
        problems.append(problem)
    raise ContractBrokenError("; or ".join(problems))


def _compare(seen: View, history: History, last_mark: int, before_it: bool) -> str | None:
    """What contradicts the contract. before_it: a step under way has not happened yet."""
    begun = max(last_mark, 0) // 2
    ended = begun if last_mark % 2 else begun - 1
    ended = max(ended, 0)
    steps = history.steps
    under_way = begun > ended
    durable = max(n for n in range(ended + 1) if steps[n].durable)
    happened = ended if before_it or not under_way else begun
    expected = steps[happened].view
    if seen.shapes != expected.shapes:
        return f"after {steps[happened].text!r}: shapes {seen.shapes} are not {expected.shapes}"
    # A change of shape makes durable what came before it, and is itself whole.
    first = happened if under_way and not before_it and steps[begun].shape else durable
    last = begun if under_way and not steps[begun].shape else happened
    for name, content in seen.sectors.items():
        problem = _disallowed(content, name, [steps[n].view for n in range(first, last + 1)])
        if problem:
            return f"after {steps[happened].text!r}, of {name}: {problem}"
    return None


def _disallowed(content: bytes, name: str, views: list[View]) -> str | None:
    allowed = {view.sectors[name] for view in views if name in view.sectors}
    if content in allowed:
        return None
    shown = array("Q", content)
    candidates = [array("Q", sectors) for sectors in allowed]
    for sector, number in enumerate(shown):
        if all(number != candidate[sector] for candidate in candidates):
            choices = sorted({candidate[sector] for candidate in candidates})
            return f"sector {sector} shows write {number}, and not one of {choices}"
    return None
