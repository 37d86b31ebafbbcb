"""What the documentation shows works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_python_examples_run(tmp_path: Path) -> None:
    examples = [
        code
        for page in PAGES
        for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert examples
    for number, code in enumerate(examples):
        directory = tmp_path / str(number)
        directory.mkdir()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=directory, timeout=60)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_pages_name_exist(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / file).exists(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), name


def test_interface_page_names_every_verb_and_call() -> None:
    from lvolfs.cli.application import make_app
    from lvolfs.ioctls import ARGUMENTS
    from lvolfs.mount import xattrs
    from lvolfs.rpc import methods
    from lvolfs.rpc.table import METHODS

    assert methods
    app = make_app()
    page = (ROOT / "docs/interface.md").read_text()
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    verbs = [command.name for command in app.registered_commands]
    for name, group in groups.items():
        verbs += [f"{name} {command.name}" for command in group.registered_commands]
    for verb in filter(None, verbs):
        first, _, second = verb.partition(" ")
        assert re.search(rf"`{first}[ `].*{second}", page), verb
    for name in METHODS:
        if not name.startswith("lvolfs_"):
            assert name in page or f"`{name.removeprefix('bdev_lvol')}`" in page, name
    for name in (*xattrs.READABLE, *xattrs.WRITABLE):
        assert f"`{name}`" in page, name
    for argument in ARGUMENTS.values():
        name = re.sub(r"(?<!^)([A-Z])", r"_\1", argument.__name__).upper()
        assert f"_{name}`" in page, name


def test_the_pages_are_reachable_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in PAGES:
        if page.parent.name == "docs":
            assert f"(docs/{page.name})" in readme, page.name
