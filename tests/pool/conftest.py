"""Fixtures for tests of the pool in real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Serve
from support import Process

PAGES = Path(__file__).parent / "pool_pages.py"


@pytest.fixture
def serve(scgi_serve: Serve) -> Callable[..., Process]:
    """`scgi serve` for the pages of `pool_pages.py`."""

    def serve(*options: str, listen: str = "", **others: object) -> Process:
        return scgi_serve(f"{PAGES}:app", *options, listen=listen, **others)

    return serve
