"""`scgi.util` and `scgi.passfd` on the reference and on ours."""

from __future__ import annotations

import subprocess

import pytest

from contract.conftest import PROGRAMS
from contract.packages import Package

# What both print; a tuple where they differ: the reference's, ours, and the heading that says why.
STRICT = "The netstring functions take what a netstring is"
UTIL: dict[str, str | tuple[str, str, str]] = {
    "size": "12",
    "size cut short": "raises OSError",
    "size of letters": "raises ValueError",
    "size with a sign": ("5", "raises ValueError", STRICT),
    "netstring": "b'hello world!'",
    "empty netstring": "b''",
    "netstring cut short": "raises OSError",
    "netstring without its comma": ("raises OSError", "raises ValueError", STRICT),
    "netstring of 2 MB": ("2000000", "raises something else", STRICT),
    "variables": "{'NAME': 'value', 'OTHER': 'é'}",
    "no variables": "{}",
    "odd variables": "raises ValueError",
    "variables without an end": ("{'NAME': 'value'}", "raises ValueError", STRICT),
    "head": "{'CONTENT_LENGTH': '0', 'SCGI': '1'}",
    "handler": "'SCGIHandler'",
    "log": "('[', ' a line\\n')",
}
PASSFD: dict[str, str | tuple[str, str, str]] = {
    "sent": "None",
    "read": "a line",
    "sent to nobody": "raises OSError",
    "received from nobody": "raises OSError",
}


@pytest.mark.parametrize(
    ("program", "expected"), [("util_functions.py", UTIL), ("passfd_functions.py", PASSFD)], ids=["util", "passfd"]
)
def test_the_functions_do_the_same(
    program: str, expected: dict[str, str | tuple[str, str, str]], package: Package
) -> None:
    done = subprocess.run(
        [package.python, PROGRAMS / program], capture_output=True, text=True, timeout=30, check=True, encoding="utf-8"
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for name, line in expected.items():
        if isinstance(line, tuple):
            line = line[0] if package.differs(line[2]) else line[1]
        assert said.pop(name) == line, name
    assert not said
