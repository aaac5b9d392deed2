"""What a load has found: what became of each request, and how long the answers took, in constant memory.

Times are whole nanoseconds. They are counted in a log-linear histogram: below 256 each has a counter of its own; above,
each power of two is cut into 128 equal parts, so a counter's width is at most 0.8 % of the times in it. Least, most and
mean are exact. Imports nothing of ours.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1_000_000_000  # nanoseconds

# Why a request has no whole answer.
REFUSED: Final = "refused"
TIMED_OUT: Final = "timed-out"
RESET: Final = "reset"
CUT: Final = "cut"
MALFORMED: Final = "malformed"

_BITS: Final = 7
_COUNTERS: Final = 42 << _BITS  # the last is for 78 hours, and whatever takes longer
_ROWS: Final = 16  # as many as a terminal shows beside the rest
# Preferred numbers (IEC 60063), evenly spaced on a logarithmic scale; every second, fourth or eighth of them is too.
_STEPS: Final = (
    10, 11, 12, 13, 15, 16, 18, 20, 22, 24, 27, 30, 33, 36, 39, 43, 47, 51, 56, 62, 68, 75, 82, 91,
)  # fmt: skip
_STRIDES: Final = (1, 2, 4, 8, 24)


class Histogram:
    """`count` times, of which `least`, `most` and `total` are known exactly."""

    def __init__(self) -> None:
        self.count = self.total = self.most = 0
        self.least = 0  # of none at all
        self._counters = [0] * _COUNTERS

    def add(self, time: int) -> None:
        shift = max(time.bit_length() - _BITS - 1, 0)
        self._counters[min((shift << _BITS) + (time >> shift), _COUNTERS - 1)] += 1
        if not self.count or time < self.least:
            self.least = time
        if time > self.most:
            self.most = time
        self.count += 1
        self.total += time

    def merge(self, other: Histogram) -> None:
        """Take in what another has counted."""
        if other.count:
            self.least = min(self.least, other.least) if self.count else other.least
            self.most = max(self.most, other.most)
            self.count += other.count
            self.total += other.total
            self._counters = [a + b for a, b in zip(self._counters, other._counters, strict=True)]

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def at(self, share: float) -> int:
        """The time within which this share (0 to 1) of all was over; 0 of none at all."""
        wanted = max(1, math.ceil(share * self.count))
        for place, so_far in enumerate(itertools.accumulate(self._counters)):
            if so_far >= wanted:
                return self._time_at(place)
        return 0

    def rows(self) -> list[tuple[int, int]]:
        """For people: a round time, and how many took no longer than that, but longer than the one before."""
        if not self.count:
            return []
        edges = _edges(self.least, self.most)
        counts = [0] * len(edges)
        row = 0
        for place, count in enumerate(self._counters):
            if count:
                while self._time_at(place) > edges[row]:
                    row += 1
                counts[row] += count
        return list(zip(edges, counts, strict=True))

    def _time_at(self, place: int) -> int:
        """The middle of what is counted there, as far as there was anything."""
        shift = max((place >> _BITS) - 1, 0)
        middle = ((place - (shift << _BITS)) << shift) + (1 << shift >> 1)
        return min(max(middle, self.least), self.most)


def _edges(least: int, most: int) -> list[int]:
    """Round times, the first not below `least`, only the last not below `most`; as many as fit into the rows."""
    least = max(least, _STEPS[0])
    decades = range(len(str(least)) - 2, len(str(most)))
    edges: list[int] = []
    for stride in _STRIDES:
        steps = [step * 10**decade for decade in decades for step in _STEPS[::stride]]
        edges = [step for step in steps if step >= least]
        edges = edges[: sum(step < most for step in edges) + 1]
        if len(edges) <= _ROWS:
            break
    return edges


@dataclass(slots=True)
class Tally:
    """What became of the requests. Those that are neither answered nor failed were interrupted."""

    began: int = 0
    ended: int = 0
    latency: Histogram = field(default_factory=Histogram)  # of all that were answered
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)  # the first sentence for each kind of failure
    sent: int = 0  # bytes
    received: int = 0
    waited: int = 0  # requests that found the server's queue full
    unsent: int = 0  # requests that were due and not begun when the time was over
    unfinished: int = 0
    interrupted: bool = False
    cpu: float = 0.0  # how much of a CPU the load itself used; of several processes, the busiest

    @property
    def answered(self) -> int:
        return self.latency.count

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def seconds(self) -> float:
        return max(self.ended - self.began, 1) / SECOND

    def merge(self, other: Tally) -> None:
        """Add what another process found."""
        self.began, self.ended = min(self.began, other.began), max(self.ended, other.ended)
        self.latency.merge(other.latency)
        self.statuses += other.statuses
        self.failures += other.failures
        self.reasons = other.reasons | self.reasons
        for name in ("sent", "received", "waited", "unsent", "unfinished"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.interrupted |= other.interrupted
        self.cpu = max(self.cpu, other.cpu)
