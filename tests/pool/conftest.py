"""Fixtures for tests of the pool in real processes."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Serve
from support import Process, wait_until

PAGES = Path(__file__).parent / "pool_pages.py"


@pytest.fixture
def serve(scgi_serve: Serve) -> Callable[..., Process]:
    """`scgi serve` for the pages of `pool_pages.py`."""

    def serve(*options: str, listen: str = "", **others: object) -> Process:
        server = scgi_serve(f"{PAGES}:app", *options, listen=listen, **others)
        wait_until(lambda: catches_term(server.pid), 10, "the pool to hear signals")
        return server

    return serve


def catches_term(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM."""
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
