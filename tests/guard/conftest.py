"""Servers whose workers die, and their clients. Where tests run as root: with `--user`, and as an ordinary user's."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Process, wait_until
from support.room import ROOT, Room, room

PAGES = Path(__file__).with_name("deadly_pages.py")
WHOSE = ["root", "ordinary"] if ROOT else ["ordinary"]


def furnished(whose: str, kind: str) -> Iterator[Room]:
    with room(as_root=whose == "root", unix=kind == "unix") as found:
        (found.folder / "pages.py").write_bytes(PAGES.read_bytes())
        yield found
        found.print_logs()


@pytest.fixture
def here() -> Iterator[Room]:
    """For what depends neither on the user nor on the kind of socket."""
    yield from furnished(WHOSE[0], "unix")


@pytest.fixture(params=["unix", "tcp"])
def each_kind(request: pytest.FixtureRequest) -> Iterator[Room]:
    yield from furnished(WHOSE[0], request.param)


@pytest.fixture(params=WHOSE)
def each_user(request: pytest.FixtureRequest) -> Iterator[Room]:
    yield from furnished(request.param, "unix")


@pytest.fixture(params=[(whose, kind) for whose in WHOSE for kind in ("unix", "tcp")], ids="-".join)
def every(request: pytest.FixtureRequest) -> Iterator[Room]:
    yield from furnished(*request.param)


def said(server: Process, what: str) -> list[tuple[float, int]]:
    """When (monotonic) and where pages have said this."""
    return [(float(at), int(pid)) for at, pid in re.findall(rf"{what} at (\S+) in (\d+)\n", server.log())]


def running(server: Process, count: int = 1) -> list[int]:
    """The workers that run a page, once so many do."""
    wait_until(lambda: len(said(server, "running")) >= count, what=f"{count} pages to run")
    return [pid for _, pid in said(server, "running")]


def sockets_of(pid: int) -> int:
    """How many sockets a process has open; 0 if it has just gone."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return 0
    count = 0
    for name in names:
        try:
            count += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return count


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def pass_the_moment(server: Process) -> None:
    """Until all pages that run are guarded."""
    last = max(at for at, _ in said(server, "running"))
    wait_until(lambda: time.monotonic() > last + 0.6, what="the guard's moment")
