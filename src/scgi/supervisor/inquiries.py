"""`scgi stacks`: the master asks all pools where their workers are, and hands on what they say, as it comes.

A pool that does not answer is waited for no longer than it could take. Imports its neighbours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from scgi.supervisor.control import Order
from scgi.supervisor.generation import Generation

_MOST: Final = 16  # at a time
_PATIENCE: Final = 5.0  # seconds, and
_EACH: Final = 0.6  # for each worker


@dataclass(slots=True)
class _Inquiry:
    order: Order
    number: int
    waiting: set[int]  # generations that have not said all
    until: float


class Inquiries:
    """Those that are not answered yet."""

    def __init__(self) -> None:
        self._open: list[_Inquiry] = []
        self._last = 0

    def ask(self, order: Order, generations: Iterable[Generation], now: float) -> None:
        """Ask those of them that serve, for whoever gave the order."""
        if len(self._open) >= _MOST:
            order.finish({"refused": f"{_MOST} others ask for the same; try again later"})
            return
        self._last += 1
        asked = [one for one in generations if one.serves and not one.lost_at]
        for one in asked:
            one.tell("stacks", number=self._last)
        until = now + _PATIENCE + _EACH * sum(len(one.workers) for one in asked)
        self._open.append(_Inquiry(order, self._last, {one.number for one in asked}, until))

    def tend(self, generations: list[Generation], now: float) -> None:
        """Hand on what the pools have said, and finish what is complete or has taken too long."""
        inquiries = {one.number: one for one in self._open}
        for generation in generations:
            heard, generation.stacks = generation.stacks, []
            for number, row in heard:
                inquiry = inquiries.get(number)
                if inquiry is None or generation.number not in inquiry.waiting:
                    continue
                if row is None:
                    inquiry.waiting.discard(generation.number)
                else:
                    with contextlib.suppress(TypeError, ValueError, KeyError, OverflowError):
                        inquiry.order.say({"worker": _checked(row, generation.number)})
        there = {generation.number for generation in generations}
        for inquiry in list(self._open):
            inquiry.waiting &= there
            if not inquiry.waiting or now >= inquiry.until:
                self._open.remove(inquiry)
                inquiry.order.finish({"done": True, "silent": sorted(inquiry.waiting)})


def _checked(row: dict[str, Any], generation: int) -> dict[str, Any]:
    """A worker as its pool has described it, of which nothing is trusted further than to be shown."""
    current = [
        {"id": str(one["id"]), "request": str(one["request"]), "age": float(one["age"])} for one in row["current"]
    ]
    state, stacks = str(row["state"]), str(row["stacks"])
    return {"generation": generation, "pid": int(row["pid"]), "state": state, "current": current, "stacks": stacks}
