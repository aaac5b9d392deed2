"""A toy SCGI server for each file of tests; what it answers is written in the tests, `last` is the request it got."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.toys import Upstream
from support import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    """Over TCP; for a file's own Apache to be configured with."""
    server = Upstream(f"127.0.0.1:{free_port()}")
    yield server
    server.close()


@pytest.fixture
def upstream(server: Upstream) -> Iterator[Upstream]:
    """The same for one test: it answers "hello", until the test says otherwise."""
    server.answer = lambda talk: talk.answer(b"hello")
    server.last = None
    yield server
    server.settle()
