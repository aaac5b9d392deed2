"""Waiting for facts: a test never sleeps and hopes, it polls something true or false until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

Fact = TypeVar("Fact")


def wait_until(predicate: Callable[[], Fact], within: float = 10, what: str = "") -> Fact:
    """The first true value of ``predicate``; if none comes the test fails, saying ``what`` was awaited."""
    deadline = time.monotonic() + within
    pause = 0.001
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            awaited = what or getattr(predicate, "__name__", "the fact")
            pytest.fail(f"waited {within:g} s in vain for: {awaited} (last value: {value!r})")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
