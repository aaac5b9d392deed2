"""Files a reader can take in: each says why it exists, none grows without end."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "src/scgi").rglob("*.py"))

LONGEST_FILE = 400
WHOLE_SOURCE = 8000


def test_every_file_says_why_it_exists() -> None:
    silent = [str(file.relative_to(ROOT)) for file in FILES if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent


def test_no_file_grows_beyond_what_can_be_read_at_a_sitting() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert not {file: count for file, count in lines.items() if count > LONGEST_FILE}
    assert sum(lines.values()) < WHOLE_SOURCE
