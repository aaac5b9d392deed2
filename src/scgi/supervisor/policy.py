"""How many workers: pure decisions on numbers, no process and no clock, so that a table can test them.

Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """The bounds: workers kept at least, workers at most, seconds after which an unneeded one goes."""

    minimum: int = 1
    maximum: int = 4
    idle_timeout: float = 30.0


SOON = 0.002  # seconds after which a connection that still waits is worth a worker: most requests are over by then
LATER = 0.008  # between looks at a pool that is busy but keeps up
STALLS = 4  # looks in a row without an end that starved workers are given: they may only wait for a processor
OFTEN = 8  # times as long as LATER, at most, until a pool that is called in vain wants to be called again
PATIENCE = 8  # looks in a row at which somebody waited although requests were being finished


@dataclass(frozen=True, slots=True)
class Census:
    """The pool at one moment."""

    workers: int  # serving or starting; those on their way out do not count
    starting: int = 0
    idle: int = 0  # threads that wait for a request
    waiting: bool = False  # a connection is in a listener's queue
    stalled: bool = True  # no request was finished since the last look
    delay: float = SOON  # seconds that the last in the queue will wait, if things go on like this
    starved: bool = False  # all workers compute, and no processor is free for another
    calls: int = 0  # in a row that nobody was idle, and then somebody was


@dataclass(frozen=True, slots=True)
class Pace:
    """What one look leaves to the next."""

    burst: int = 1  # workers to fork next time
    streak: int = 0  # looks in a row at which somebody waited
    rested: bool = False  # the last look found somebody idle
    stalls: int = 0  # looks in a row at which starved workers had finished nothing


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and when to look again."""

    spawn: int = 0
    pace: Pace = Pace()
    look_in: float | None = None  # seconds; None: when something happens
    watch: bool = False  # wake up when a connection comes
    arm: bool = False  # wake up when nobody is idle


def decide(policy: PoolPolicy, census: Census, pace: Pace) -> Decision:
    """Grow when everybody is busy and somebody waits: at once if nothing gets finished, each time twice as many.

    If requests are being finished, only after a while, and only if the queue is long for their pace: a worker more
    does not shorten a wait of microseconds, it only makes all of them colder. Where all workers compute and every
    processor is taken, one more would only take its time from them.
    """
    missing = max(0, policy.minimum - census.workers)
    room = policy.maximum - census.workers
    if missing or census.starting:
        return Decision(missing, pace, SOON)
    if census.idle:
        again = LATER * min(2**census.calls, OFTEN) if room > 0 else 4 * LATER
        return Decision(pace=Pace(rested=True), arm=pace.rested, look_in=None if pace.rested else again)
    if room <= 0:
        return Decision(look_in=4 * LATER)
    if not census.waiting:
        watch = census.stalled or not census.workers
        return Decision(pace=Pace(), watch=watch, look_in=None if watch else LATER)
    if census.starved and census.stalled and pace.stalls + 1 < STALLS:
        return Decision(pace=Pace(pace.burst, stalls=pace.stalls + 1), look_in=SOON)
    if census.starved and not census.stalled:
        return Decision(pace=Pace(pace.burst), look_in=4 * LATER)
    if not census.stalled and pace.streak + 1 < PATIENCE:
        return Decision(pace=Pace(pace.burst, pace.streak + 1), look_in=SOON)
    if not census.stalled and census.delay < SOON:
        return Decision(pace=pace, look_in=4 * LATER)
    return Decision(min(pace.burst, room), Pace(burst=pace.burst * 2), SOON)


class IdleRecord:
    """Remembers since when at least 1, 2, 3 … workers have been idle without a break."""

    def __init__(self, maximum: int) -> None:
        self._since: list[float | None] = [None] * maximum

    def note(self, idle: int, now: float) -> None:
        """So many are idle at `now` (monotonic seconds)."""
        for number, since in enumerate(self._since):
            if number >= idle:
                self._since[number] = None
            elif since is None:
                self._since[number] = now

    def surplus(self, timeout: float, now: float) -> int:
        """How many have been idle for `timeout` seconds."""
        return sum(since is not None and now - since >= timeout for since in self._since)


class RestartBudget:
    """Back-off for workers that die at once: free for the first, then 0.1 s, doubling to 10 s.

    Those that had come to serve are not worth more than BRIEF: somebody kills them, or a request does.
    """

    FIRST, BRIEF, LONGEST = 0.1, 0.3, 10.0

    def __init__(self) -> None:
        self.losses = 0  # in a row
        self._last = 0.0
        self._until = 0.0

    def lost(self, now: float, longest: float = LONGEST) -> float:
        """A worker died at once; returns the seconds of rest."""
        self.losses += 1
        self._last = now
        rest = 0.0 if self.losses == 1 else min(longest, self.FIRST * 2.0 ** min(self.losses - 2, 30))
        self.rest(rest, now)
        return rest

    def settled(self, born: float) -> None:
        """A worker that was born then is well: losses from before its birth are forgiven."""
        if born >= self._last:
            self.losses = 0

    def rest(self, seconds: float, now: float) -> None:
        """No more for so long; also for another reason (fork failed)."""
        self._until = max(self._until, now + seconds)

    def remaining(self, now: float) -> float:
        """Seconds of rest that are left."""
        return max(0.0, self._until - now)
