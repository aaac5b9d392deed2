"""Servers whose applications hang, and how their clients and their logs fare."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Serve
from support import Process, wait_until

HERE = Path(__file__).parent


@pytest.fixture
def serve(scgi_serve: Serve, short_tmp: Path) -> Callable[..., Process]:
    """`scgi serve` for `hung_pages.py`, or another application of this folder, at a unix socket."""

    def serve(*options: str, app: str = "hung_pages.py", timeout: float = 1, workers: int = 1) -> Process:
        count = ("--min-workers", str(workers), "--max-workers", str(workers))
        words = ("--timeout", str(timeout), "--control", str(short_tmp / "control"), *count, *options)
        env = {"CLEANED": str(short_tmp / "cleaned")}
        if "--threads" in options:  # Python 3.11 hangs where it is traced and an exception is pending in a thread
            env |= {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
        server = scgi_serve(
            HERE / app if ":" not in app else f"{HERE}/{app}", *words, listen=f"unix:{short_tmp}/s", env=env
        )
        wait_until(lambda: len(server.workers()) == workers, 10, f"{workers} workers")
        return server

    return serve


def records(server: Process, pattern: str) -> list[str]:
    """The log records in which the pattern occurs, each with the lines of its traceback or stacks."""
    found = re.split(r"^(?=\d{4}-)", server.log(), flags=re.MULTILINE)
    return [record for record in found if re.search(pattern, record)]
