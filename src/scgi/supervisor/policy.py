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


@dataclass(frozen=True, slots=True)
class Census:
    """The pool at one moment."""

    workers: int  # serving or starting; those on their way out do not count
    starting: int = 0
    idle: int = 0  # threads that wait for a request
    waiting: bool = False  # a connection is in a listener's queue
    surplus: int = 0  # workers that nobody needed during the whole idle timeout
    resting: bool = False  # new workers die at once: no more for a moment


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and how many workers to fork next time if it was not enough."""

    spawn: int = 0
    retire: int = 0
    burst: int = 1


def decide(policy: PoolPolicy, census: Census, burst: int = 1) -> Decision:
    """Grow when everybody is busy and somebody waits, twice as many each time; shrink what was never needed."""
    missing = max(0, policy.minimum - census.workers)
    if census.resting:
        return Decision(burst=1)
    if census.waiting and not census.idle and not census.starting:
        room = policy.maximum - census.workers
        spawn = max(missing, min(burst, room))
        return Decision(spawn=spawn, burst=min(burst * 2, policy.maximum))
    spare = max(0, census.workers - policy.minimum)
    return Decision(spawn=missing, retire=min(census.surplus, spare), burst=1 if census.idle else burst)


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
    """Back-off for workers that die at once: free for the first, then 0.1 s, doubling to 10 s."""

    FIRST, LONGEST = 0.1, 10.0

    def __init__(self) -> None:
        self.losses = 0
        self._until = 0.0

    def lost(self, now: float) -> float:
        """A worker died at once; returns the seconds of rest."""
        self.losses += 1
        rest = 0.0 if self.losses == 1 else min(self.LONGEST, self.FIRST * 2.0 ** (self.losses - 2))
        self._until = now + rest
        return rest

    def survived(self) -> None:
        """A worker has got over its start."""
        self.losses = 0

    def rest(self, seconds: float, now: float) -> None:
        """No more for so long, for another reason (fork failed)."""
        self._until = max(self._until, now + seconds)

    def remaining(self, now: float) -> float:
        """Seconds of rest that are left."""
        return max(0.0, self._until - now)
