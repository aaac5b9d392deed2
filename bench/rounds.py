"""All servers are up at once and loaded in turn, in short slices, in an order that changes from round to round.

A machine's speed drifts by more than the servers differ: neighbours on the same host, clock, caches. So a server is
never compared with itself of another moment, only with the others of the same round, and what is reported is the median
of these ratios with their quartiles. On a host with neighbours what two servers cost within a tenth of a second goes
together, and what they cost within a second hardly does: so the slices are short and the rounds many. Slices below
about 100 ms would measure how a server begins and ends to be busy: ours looks a few times then whether it needs
another worker.

The proof that this works is a server that is listed twice: it must come out at 1.00.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
    """One server, slice by slice; by the number of the round, since not all take part in every round."""

    server: Server
    cpu: dict[int, float] = field(default_factory=dict)  # µs per request
    rate: dict[int, float] = field(default_factory=dict)  # requests per second
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
    def of(cls, numbers: Iterable[float]) -> Spread:
        values = list(numbers)
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Measured:
    """Every server's series, by name in the order given."""

    series: dict[str, Series] = field(default_factory=dict)
    rounds: int = 0

    def ratio(self, name: str, base: str) -> Spread | None:
        """How many times as much CPU per request as `base`, round by round; None if one of them is left out."""
        if name not in self.series or base not in self.series:
            return None
        ours, theirs = self.series[name].cpu, self.series[base].cpu
        return Spread.of(ours[turn] / theirs[turn] for turn in ours.keys() & theirs.keys())

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
    into: Measured | None = None,
) -> Measured:
    """Load servers that are running: each once for `warm_up` seconds, then `rounds` times for `seconds`.

    `cpu` says whose time counts; by default that of the server's whole process tree. With `into` the rounds are added
    to those of an earlier run with the same servers.
    """
    measured = into or Measured()
    for server in servers:
        measured.series.setdefault(server.name, Series(server))
        load(server, warm_up, 0)  # workers are forked, caches filled, code specialised
    shuffle = random.Random(measured.rounds).sample  # a seed: two runs go through the same orders
    for turn in range(measured.rounds, measured.rounds + rounds):
        for server in shuffle(servers, len(servers)):
            if turn % server.every:
                continue
            before = cpu(server)
            part = load(server, seconds, turn + 1)  # the same requests to all
            settle(server, cpu)
            one = measured.series[server.name]
            one.cpu[turn] = (cpu(server) - before) / part.requests * 1e6
            one.rate[turn] = part.requests / part.seconds
            one.requests += part.requests
            one.histogram += part.histogram
    measured.rounds += rounds
    return measured


def settle(server: Server, cpu: Callable[[Server], float], within: float = 0.2) -> None:
    """Wait until a server has nothing left to do: its last close comes after its client's last read."""
    deadline = time.monotonic() + within
    last = cpu(server)
    while time.monotonic() < deadline:
        time.sleep(0.001)
        now = cpu(server)
        if now - last < 20e-6:
            return
        last = now
