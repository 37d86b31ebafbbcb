"""The JSON document of a run, and merging one run into another."""

import json
from pathlib import Path
from typing import Any

from bench.case import Outcome

FORMAT = 1


class ResultError(RuntimeError):
    """A file that is no benchmark result."""


def document(outcomes: list[Outcome], **about: Any) -> dict[str, Any]:
    return {"format": FORMAT, **about, "cases": [outcome.document() for outcome in outcomes]}


def load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ResultError(f"{path} is not JSON ({error}): give a file that --json wrote") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ResultError(f"{path} is no result of this benchmark: give a file that --json wrote")
    return found


def outcomes(found: dict[str, Any]) -> dict[str, Outcome]:
    return {case["key"]: Outcome.from_document(case) for case in found["cases"]}


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new`, and what only `old` measured.

    A case is taken from one of them as a whole: ratios are never made across runs. Only of
    cases whose contestants are measured one after the other anyway, the contestants that `new`
    has not are kept, too. "slices" lists the runs that the cases are from.
    """
    merged = outcomes(old)
    for key, outcome in outcomes(new).items():
        if outcome.sequential and key in merged:
            older = {n: why for n, why in merged[key].failures.items() if n not in outcome.samples}
            outcome.failures = older | outcome.failures
            outcome.samples = {**merged[key].samples, **outcome.samples}
        merged[key] = outcome
    slices = [*old.get("slices", []), *new.get("slices", [])]
    cases = [outcome.document() for outcome in merged.values()]
    return {**new, "slices": slices, "cases": cases}


def save(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
