"""The two packages that are called `scgi`, where they may differ, and a client that takes the answers of both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import Reset, build_request, raw_exchange

DIFFERENCES = (Path(__file__).parents[2] / "docs/explanation/reference-differences.md").read_text()


@dataclass(frozen=True, slots=True)
class Package:
    """One of the two: the Python that imports it."""

    name: str
    python: str

    def __str__(self) -> str:
        return self.name

    def differs(self, reason: str) -> bool:
        """Whether this is the reference, where it differs from ours. The reason is a heading of the page on it."""
        assert f"### {reason}\n" in DIFFERENCES, f"docs/explanation/reference-differences.md lacks {reason!r}"
        return self.name == "reference"


@dataclass(frozen=True, slots=True)
class Answer:
    """A CGI response as any web server reads it; status 0 if there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(address: str, *, half_close: bool = False, **request: Any) -> Answer:
    """One request; the reference's answers are bare CGI, without a Status line."""
    try:
        raw = raw_exchange(address, build_request(**request), half_close=half_close, within=25)
    except Reset as reset:
        raw = reset.received
    parts = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)
    if len(parts) < 2:
        return Answer(0, {}, raw)
    head, body = parts
    headers = dict(line.split(": ", 1) for line in head.decode("latin-1").splitlines())
    return Answer(int(headers.pop("Status", "200").split()[0]), headers, body)
