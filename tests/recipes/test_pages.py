"""What a page shows and what lies in examples/ under its name are the same files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from house.test_docs import BLOCK
from recipes.environments import REQUIREMENTS, ROOT
from recipes.recipe import HOW_TO, named

RECIPES = {file.stem.removeprefix("test_").replace("_", "-") for file in Path(__file__).parent.glob("test_*.py")}
PAGES = sorted(RECIPES & {folder.name for folder in (ROOT / "examples").iterdir()})


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_are_what_the_page_shows(name: str) -> None:
    blocks = BLOCK.findall((HOW_TO / f"{name}.md").read_text())
    shown = {file: content for kind, _, content, _ in blocks if (file := named(kind, content))}
    folder = ROOT / "examples" / name
    there = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert there == shown
    programs = {file for file, content in shown.items() if content.startswith("#!")}
    assert {file for file in there if (folder / file).stat().st_mode & 0o100} == programs


@pytest.mark.parametrize("file", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda file: file.stem)
def test_what_a_page_installs_is_what_is_tested(file: Path) -> None:
    """Versions that a page names are those of requirements/NAME.txt."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", file.read_text().lower(), re.MULTILINE))
    page = HOW_TO / f"{file.stem}.md"
    installs = re.findall(r"^pip install.*\n", page.read_text(), re.MULTILINE)
    wanted = re.findall(r"\b([\w-]+)==([\w.]+)", "".join(installs).lower())
    assert wanted and dict(wanted).items() <= pinned.items()
