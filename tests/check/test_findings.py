"""Every kind of finding that `lvolfs check` has: reported for a fault made for it and for nothing
else, with nothing written; and `--repair` puts right what has one right answer, keeps every intact
lvol, and says what is lost."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lvolfs._native.device import Device
from lvolfs.blobstore import check as checking
from lvolfs.blobstore.check import Finding
from lvolfs.blobstore.errors import FormatError
from lvolfs.delta.store_check import CheckReport, check_closed
from lvolfs.lvstore import store as opening
from lvolfs.lvstore.store import Lvstore
from tests.check import chain_cases, store_cases
from tests.check.base_store import CLUSTER, SHOWN, Editor, make_base_store, pattern
from tests.check.case import Case
from tests.torture import count

CASES = [*store_cases.CASES, *chain_cases.CASES]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("base") / "store"
    make_base_store(path)
    assert check_closed(str(path)).findings == []
    return path.read_bytes()


@pytest.fixture(scope="module")
def told() -> dict[str, CheckReport]:
    """What has been said of each case so far: the last test needs it of all."""
    return {}


def lose_sectors(case: Case, image: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on devices are opened with the sectors that the case has lost."""
    if case.unreadable is None:
        return
    monkeypatch.setenv("LVOLFS_SEEDED_FAULTS", "1")
    ranges = list(case.unreadable(image))

    def open_device(path: str, **options: bool) -> Device:
        device = Device(path, **options)
        for offset, length, error in ranges:
            device.plant_fault("read", error, offset=offset, length=length)
        return device

    for module in (opening, checking):
        monkeypatch.setattr(module, "Device", open_device)


def is_expected(finding: Finding, case: Case) -> bool:
    return any(
        finding.severity == severity
        and re.search(subject, finding.object)
        and re.search(text, finding.text)
        for severity, subject, text in case.findings
    )


def is_consequence(finding: Finding, case: Case) -> bool:
    """Of a store that was not closed, or of what a lost lvol owned."""
    return finding.text.startswith("the store was not closed cleanly") or bool(
        case.lost
        and finding.object == "masks"
        and re.search("are marked used by nobody|in use are marked free", finding.text)
    )


def check_findings(report: CheckReport, case: Case) -> None:
    found = [f for f in report.findings if not is_consequence(f, case) or is_expected(f, case)]
    assert all(is_expected(finding, case) for finding in found), found
    for severity, subject, text in case.findings:
        one = Case("", case.craft, [(severity, subject, text)])
        assert any(is_expected(finding, one) for finding in found), (text, report.findings)
    assert len(found) == len(case.findings), found


def check_what_is_shown(path: Path, case: Case) -> None:
    with Lvstore.open(str(path), read_only=True) as store:
        for name, pieces in SHOWN.items():
            if name in case.unsure:
                continue
            if name in case.lost:
                with pytest.raises(OSError, match=r"damaged|no lvol"):
                    store.get(name)
                continue
            for offset, seed in pieces:
                assert store.get(name).pread(3 * CLUSTER, offset) == pattern(seed), name


def crafted(case: Case, base: bytes, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path.write_bytes(base)
    image = Editor(path)
    case.craft(image)
    lose_sectors(case, image, monkeypatch)
    return path


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_fault_is_found_and_what_can_be_is_repaired(
    case: Case,
    base: bytes,
    tmp_path: Path,
    told: dict[str, CheckReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = crafted(case, base, tmp_path / "store", monkeypatch)
    before = path.read_bytes()
    report = told[case.name] = check_closed(str(path))
    assert path.read_bytes() == before
    assert report.repairs == []
    check_findings(report, case)
    assert report.consistent == all(severity == "note" for severity, _, _ in case.findings)
    count("faults found by check", 1)

    if not case.opens:
        with pytest.raises(FormatError):
            Lvstore.open(str(path))
        assert check_closed(str(path), repair=True).findings == report.findings
        assert path.read_bytes() == before
        return
    repaired = check_closed(str(path), repair=True)
    check_what_is_shown(path, case)
    if case.repaired:
        assert repaired.findings == []
        assert repaired.repairs
    else:
        check_findings(repaired, replace(case, findings=case.after or case.findings))
    # What is new takes nothing that a lost lvol may still get back.
    with Lvstore.open(str(path)) as store:
        store.create_volume("new", 8 * CLUSTER).pwrite(b"n" * (2 * CLUSTER), 0)
        store.get("new").delete()
    check_what_is_shown(path, case)


# -- no kind of finding without a case

SOURCES = (
    "lvolfs/blobstore/check.py",
    "lvolfs/blobstore/contents.py",
    "lvolfs/blobstore/descriptors.py",
    "lvolfs/blobstore/interrupted.py",
    "lvolfs/blobstore/masks.py",
    "lvolfs/blobstore/metadata_page.py",
    "lvolfs/blobstore/ownership.py",
    "lvolfs/blobstore/superblock.py",
    "lvolfs/delta/checksum_table.py",
    "lvolfs/delta/checksums.py",
    "lvolfs/delta/store_check.py",
)
# Functions of them that a check does not call, or not for what it finds.
OTHER_FUNCTIONS = {
    *("plan_superblock", "grown_superblock", "_repair"),
    *("parse_algorithm", "select_clusters", "register", "verify", "stop", "table", "_table"),
    *("_check_keeps_checksums", "add", "_keep", "_store"),
}
# What no fault on a disk makes a check say, and why.
UNREACHABLE = {
    ".* bits do not fit its .* bytes": "the geometry is checked first",
    ".* bits do not fit .* bytes": "of a mask that is written",
    ".* bytes of records of .*": "descriptors of another length are damage already",
    "one of its metadata pages": "a page of a chain is no extent page, which is damage already",
    "superblock of .*": "the object of a finding, not its text",
}


def messages() -> Iterator[str]:
    """A regular expression for each sentence in the sources that findings are made of."""
    for name in SOURCES:
        for node in _code(ast.parse((REPOSITORY / name).read_text())):
            if isinstance(node, ast.JoinedStr):
                texts = [p.value if isinstance(p, ast.Constant) else None for p in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts = [node.value]
            else:
                continue
            words = "".join(str(text or "") for text in texts).split()
            if sum(word.islower() for word in words) > 1:
                found = (".*" if text is None else re.escape(str(text)) for text in texts)
                yield "".join(found).replace("\\ ", " ")


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, without what is documentation, and strings as a whole."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef) and child.name in OTHER_FUNCTIONS:
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        yield child
        if not isinstance(child, ast.JoinedStr):
            yield from _code(child)


def native_reasons() -> Iterator[str]:
    """Why an extent page is not believed: what extent_parse returns."""
    text = (REPOSITORY / "_native/metadata.pyx").read_text()
    body = text[text.index("extent_parse(") : text.index("# -- chains")]
    yield from map(re.escape, re.findall(r'return "([^"]+)"', body))


def test_no_finding_is_without_a_case(
    base: bytes, tmp_path: Path, told: dict[str, CheckReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds one has to add a fault that shows it."""
    for case in CASES:
        if case.name not in told:
            with monkeypatch.context() as patch:
                path = crafted(case, base, tmp_path / "store", patch)
                told[case.name] = check_closed(str(path))
    assert len(told) == len(CASES), "two cases have one name"
    wanted = {*messages(), *native_reasons()}
    assert len(wanted) > 80
    said = "\n".join(finding.text for report in told.values() for finding in report.findings)
    missing = {each for each in wanted if not re.search(each, said)}
    assert missing == UNREACHABLE.keys()
