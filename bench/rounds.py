"""All servers are up at once and loaded in turn, in short slices, in an order that changes from round to round.

A machine's speed drifts by more than the servers differ: neighbours, clock, caches. So a server is never compared with
itself of another minute, only with the others of the same round, and what is reported is the median of these ratios
with their quartiles. The proof that this works is a server that is listed twice: it must come out at 1.00.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.servers import Server

AGAIN = " again"  # "scgi" and "scgi again" are two instances of the same
TOLERANCE = 0.02


@dataclass(frozen=True)
class Slice:
    """What a client saw in one slice; the histogram says how many requests took so many nanoseconds, to 3 %."""

    requests: int
    seconds: float
    histogram: Counter[int] = field(default_factory=Counter)


Load = Callable[[Server, float, int], Slice]
"""load(server, seconds, seed): load it for so long. The seed makes requests differ from those of other slices."""


@dataclass
class Series:
    """One server, slice by slice."""

    server: Server
    cpu: list[float] = field(default_factory=list)  # µs per request
    rate: list[float] = field(default_factory=list)  # requests per second
    requests: int = 0
    histogram: Counter[int] = field(default_factory=Counter)

    def percentile(self, share: float) -> float | None:
        """The latency in µs that this share of all requests (0.99) did not exceed."""
        wanted = share * self.histogram.total()
        for latency in sorted(self.histogram):
            wanted -= self.histogram[latency]
            if wanted <= 0:
                return latency / 1000
        return None


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Measured:
    """Every server's series, by name in the order given."""

    series: dict[str, Series]

    def ratio(self, name: str, base: str) -> Spread | None:
        """How many times as much CPU per request as `base`, round by round; None if one of them is left out."""
        if name not in self.series or base not in self.series:
            return None
        pairs = zip(self.series[name].cpu, self.series[base].cpu, strict=True)
        return Spread.of([ours / theirs for ours, theirs in pairs])

    def twins(self) -> dict[str, Spread]:
        """The ratio of each server that is listed twice to itself."""
        found = {name: self.ratio(name, name.removesuffix(AGAIN)) for name in self.series if name.endswith(AGAIN)}
        return {name: ratio for name, ratio in found.items() if ratio is not None}

    def trusted(self) -> bool:
        return all(abs(ratio.median - 1) <= TOLERANCE for ratio in self.twins().values())


def run(
    servers: Sequence[Server],
    load: Load,
    *,
    rounds: int,
    seconds: float = 0.25,
    warm_up: float = 1.0,
    cpu: Callable[[Server], float] = Server.cpu,
) -> Measured:
    """Load servers that are running: each once for `warm_up` seconds, then `rounds` times for `seconds`.

    `cpu` says whose time counts; by default that of the server's whole process tree.
    """
    measured = Measured({server.name: Series(server) for server in servers})
    for server in servers:
        load(server, warm_up, 0)  # workers are forked, caches filled, code specialised
    shuffle = random.Random(len(servers)).sample  # a seed: two runs go through the same orders
    for turn in range(1, rounds + 1):
        for server in shuffle(servers, len(servers)):
            before = cpu(server)
            part = load(server, seconds, turn)  # the same requests to all
            settle(server, cpu)
            one = measured.series[server.name]
            one.cpu.append((cpu(server) - before) / part.requests * 1e6)
            one.rate.append(part.requests / part.seconds)
            one.requests += part.requests
            one.histogram += part.histogram
    return measured


def settle(server: Server, cpu: Callable[[Server], float], within: float = 0.2) -> None:
    """Wait until a server has nothing left to do: its last close comes after its client's last read."""
    deadline = time.monotonic() + within
    last = cpu(server)
    while time.monotonic() < deadline:
        time.sleep(0.002)
        now = cpu(server)
        if now - last < 20e-6:
            return
        last = now
