"""Whatever an SCGI server does, its front tells the truth about it, in time and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hostile.fronts import FRONTS, TIMEOUT, FrontUnderTest
from support import free_port, short_folder
from support.hostile import OPEN, TABLE, HostileServer, Row, Truth, says

MEGA = 1 << 20
# Beyond the front's own time: to start a program, to move a large upload, and a linger, on a machine that others use.
GRACE = 8
MEMORY = 48 * MEGA  # more than after its first request; the upload that the client holds itself is not counted
SITES = [(name, kind) for name, (_, kinds) in FRONTS.items() for kind in kinds]
GOOD = Row("good", says(OPEN + b"hello"), Truth(answers=((200, b"hello"),)))


@dataclass(frozen=True, slots=True)
class Site:
    front: FrontUnderTest
    server: HostileServer
    memory: int


@pytest.fixture(scope="module", params=SITES, ids="-".join)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    name, kind = request.param
    with short_folder() as folder:
        address = f"unix:{folder}/hostile" if kind == "unix" else f"127.0.0.1:{free_port()}"
        if kind == "unix":
            folder.chmod(0o755)
        with HostileServer(address) as server, FRONTS[name][0](address, folder) as front:
            for row in (GOOD, next(row for row in TABLE if row.upload)):
                server.row = row
                row.truth.judge(front.ask(row))
            yield Site(front, server, front.peak_memory())


@pytest.mark.parametrize("row", [row for row in TABLE if not row.tcp], ids=lambda row: row.name)
def test_the_truth_is_told_in_time_and_in_bounded_memory(site: Site, row: Row) -> None:
    expect_the_truth(site, row)


@pytest.mark.parametrize("site", [site for site in SITES if site[1] == "tcp"], ids="-".join, indirect=True)
@pytest.mark.parametrize("row", [row for row in TABLE if row.tcp], ids=lambda row: row.name)
def test_a_reset_that_only_tcp_has_is_told_by(site: Site, row: Row) -> None:
    expect_the_truth(site, row)


def expect_the_truth(site: Site, row: Row) -> None:
    site.server.row = row
    before = site.front.log()
    seen = site.front.ask(row)
    site.server.settle()
    if row.truth.cut and seen.whole and seen.status == 200 and not site.front.shows_open_cuts:
        assert "an answer broke off" in site.front.log()[len(before) :], seen
    else:
        row.truth.judge(seen)
    assert seen.seconds < TIMEOUT + row.within + GRACE
    assert site.front.peak_memory() < site.memory + MEMORY
    site.server.row = GOOD  # nothing of it is left to the next request
    GOOD.truth.judge(site.front.ask(GOOD))
    site.server.settle()
