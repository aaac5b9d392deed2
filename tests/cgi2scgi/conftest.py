"""cgi2scgi, built once for the tests of a process, and a toy SCGI server that says what it was sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cgi2scgi.program import build
from gateway.toys import Upstream
from support import free_port, short_folder


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """In a folder that web servers may enter."""
    with short_folder() as folder:
        yield build(folder)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Answers "hello" until the test has it answer otherwise; `last` is the request it got."""
    server = Upstream(f"127.0.0.1:{free_port()}")
    yield server
    server.close()
    server.settle()
