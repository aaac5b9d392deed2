"""Files a reader can take in: each says why it exists, none grows without end."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "src/scgi").rglob("*.py"))

LONGEST_FILE = 400
LONGER = {"src/scgi/supervisor/pool.py": 435}  # one loop, and all that may happen in a turn of it
# Lines of code: docstrings, comments and blank lines aside. The aim was 8,000; slow peers and hung requests are seen
# from outside, by processes of their own, and that is a fifth of it; `scgi bench` is a twentieth, and so are the
# configurations of web servers with the probe that checks them; a server for CGI programs is another, and sessions and
# flup's face are half of one.
WHOLE_SOURCE = 13_200
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def test_every_file_says_why_it_exists() -> None:
    silent = [str(file.relative_to(ROOT)) for file in FILES if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent


def test_no_file_grows_beyond_what_can_be_read_at_a_sitting() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert not {file: count for file, count in lines.items() if count > LONGER.get(file, LONGEST_FILE)}
    assert sum(len(lines_of_code(file.read_text())) for file in FILES) < WHOLE_SOURCE


def lines_of_code(text: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for one in tokens if one.type not in _NO_CODE for line in range(one.start[0], one.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines
