"""A site for each test: one gateway process per module, its toy server answering as the test has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.toys import Site, build_site
from support import short_folder


def _fresh(site: Site) -> Iterator[Site]:
    site.upstream.answer = lambda talk: talk.answer(b"hello")
    site.upstream.last = None
    yield site
    site.upstream.settle()


@pytest.fixture(scope="module")
def unix_site() -> Iterator[Site]:
    with short_folder() as folder, build_site("unix", folder) as site:
        yield site


@pytest.fixture(scope="module")
def tcp_site() -> Iterator[Site]:
    with short_folder() as folder, build_site("tcp", folder) as site:
        yield site


@pytest.fixture(scope="module")
def impatient_site() -> Iterator[Site]:
    with short_folder() as folder, build_site("unix", folder, connect_timeout=0.4, read_timeout=0.4) as site:
        yield site


@pytest.fixture
def site(unix_site: Site) -> Iterator[Site]:
    """A gateway in front of a unix socket."""
    yield from _fresh(unix_site)


@pytest.fixture(params=["unix", "tcp"])
def either_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A gateway in front of a unix socket, then one in front of a TCP port."""
    yield from _fresh(request.getfixturevalue(f"{request.param}_site"))


@pytest.fixture
def impatient(impatient_site: Site) -> Iterator[Site]:
    """A gateway that waits 0.4 seconds for anything."""
    yield from _fresh(impatient_site)
