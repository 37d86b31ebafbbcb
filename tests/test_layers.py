"""Packages import only what lies below them; see docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "lvolfs"
LAYERS = {
    "_native": 0,
    "bdev": 1,
    "blobstore": 1,
    "lvstore": 2,
    "delta": 3,
    "report": 4,
    "mount": 5,
    "rpc": 5,
    "cli": 6,
}
"""bdev stands for itself: of lvstore it only knows the lvol that it wraps."""

EXCEPTIONS = {("bdev", "lvstore"), ("delta", "bdev")}


def imports(node: ast.AST) -> Iterator[str]:
    """Modules imported when the code runs, also inside functions; not for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in child.names)
        yield from imports(child)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_downwards(package: str) -> None:
    for file in sorted((ROOT / package).glob("*.py")):
        for module in imports(ast.parse(file.read_text())):
            parts = module.split(".")
            if parts[0] != "lvolfs" or len(parts) < 2 or parts[1] not in LAYERS:
                continue
            other = parts[1]
            allowed = other == package or LAYERS[other] < LAYERS[package]
            assert allowed or (package, other) in EXCEPTIONS, f"{file.name} imports {module}"
            if package in ("_native", "blobstore", "lvstore", "delta", "bdev"):
                assert "pyfuse3" not in module
