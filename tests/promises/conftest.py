"""Every promise is tested twice where tests run as root: with a server of root's, whose application is `nobody`'s, and
with a server that is `nobody`'s as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.room import ROOT, Room, room

PAGES = Path(__file__).with_name("pages.py")
WHOSE = ["root", "ordinary"] if ROOT else ["ordinary"]
EVERY = [(whose, kind) for whose in WHOSE for kind in ("unix", "tcp")]


def furnished(whose: str, kind: str) -> Iterator[Room]:
    with room(as_root=whose == "root", unix=kind == "unix") as found:
        (found.folder / "pages.py").write_bytes(PAGES.read_bytes())
        yield found
        found.print_logs()


@pytest.fixture(params=WHOSE)
def tcp_room(request: pytest.FixtureRequest) -> Iterator[Room]:
    yield from furnished(request.param, "tcp")


@pytest.fixture(params=WHOSE)
def unix_room(request: pytest.FixtureRequest) -> Iterator[Room]:
    yield from furnished(request.param, "unix")


@pytest.fixture(params=[("root", "unix"), ("ordinary", "tcp")] if ROOT else EVERY[:2], ids="-".join)
def either_room(request: pytest.FixtureRequest) -> Iterator[Room]:
    """For what hardly depends on the kind of socket: each once."""
    yield from furnished(*request.param)


@pytest.fixture(params=EVERY, ids="-".join)
def every_room(request: pytest.FixtureRequest) -> Iterator[Room]:
    yield from furnished(*request.param)
