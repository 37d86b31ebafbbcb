"""What a result does not have, and what misses its target, in words for the documentation."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import report
from bench.case import Outcome
from bench.settings import MIB, Settings
from bench.targets import Row

SWEEP = "speed by block size and depth, for the plots"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def above(row: Row) -> str:
    """How far the ceiling of a missed row is."""
    if row.ceiling is None:
        return ""
    return f"; `{row.ceiling_name}`, which does less, has {report.amount(row.ceiling, row.unit)}"


def below_targets(rows: Iterable[Row]) -> str:
    missed = []
    for row in rows:
        if row.met is False:
            best = {
                True: "; the best round reaches it",
                False: "; no round reaches it",
                None: "",
            }[row.reached]
            measured = report.amount(row.measured, row.unit)
            missed.append(f"{row.title}: {measured}, target {row.target}{best}{above(row)}")
    if not missed:
        return "Every row that was measured meets its target."
    return "Below their targets in this run:\n\n" + bullets(missed)


def shortened(slices: Iterable[Mapping[str, Any]]) -> list[str]:
    """How the pieces of a result were smaller than `make bench`."""
    usual = Settings.of(Path())
    lines = []
    for piece in slices:
        less = [
            text
            for shorter, text in (
                (piece["rounds"] < usual.rounds, f"at most {piece['rounds']} rounds"),
                (piece["fio_seconds"] < usual.seconds, f"fio for {piece['fio_seconds']:g} s"),
                (
                    piece["volume_size"] < usual.volume_size,
                    f"volumes of {piece['volume_size'] // MIB} MiB",
                ),
                (
                    piece["rebuild_size"] < usual.rebuild_size,
                    f"replicas of {piece['rebuild_size'] // MIB} MiB",
                ),
            )
            if shorter
        ]
        if less:
            lines.append(f"the piece of {piece['date']}: {', '.join(less)}")
        if piece.get("interrupted"):
            lines.append(f"the piece of {piece['date']} was interrupted")
        if piece.get("skipped"):
            lines.append(
                f"the piece of {piece['date']}: {piece['skipped']} samples were not taken when its "
                f"{piece['minutes']:g} minutes were up"
            )
    return lines


def left_out(
    outcomes: Mapping[str, Outcome],
    whole: Mapping[str, Outcome],
    slices: Iterable[Mapping[str, Any]],
) -> str:
    """Cases and contestants of `whole` without a sample, failures, shorter pieces."""
    cases: dict[str, None] = {}
    contestants: dict[str, list[str]] = {}
    for key, case in whole.items():
        found = outcomes.get(key)
        title = SWEEP if key.startswith("sweep.") else case.title
        if found is None or not any(found.samples.values()):
            cases[title] = None
            continue
        for name in case.samples:
            if not found.samples.get(name) and name not in found.failures:
                contestants.setdefault(name, []).append(title)
    lines = [f"not measured: {'; '.join(cases)}"] if cases else []
    lines += [
        f"without {name}: {'; '.join(dict.fromkeys(titles))}"
        for name, titles in contestants.items()
    ]
    lines += [f"failed: {line}" for line in report.failures(outcomes)]
    lines += shortened(slices)
    if not lines:
        return "This is a whole run: every case and every contestant of `make bench`."
    return "This is not all of `make bench`:\n\n" + bullets(lines)
