"""When to look at the queues and the scoreboard, and how many workers more that makes.

Workers ring the bell when nobody is idle; everything else is looked at when it is due. What is decided is `policy`'s;
here are the clock and the eyes. While nobody is idle, those who only wait for their peers are told to hand them over,
and where people wait for long, workers are told to see whether they still do.

Imports `net`, `status` and its neighbours.
"""

from __future__ import annotations

import select
import time
from dataclasses import replace
from typing import Final

from scgi.status.process import is_runnable, processors_are_taken
from scgi.status.scoreboard import ARMED, CROWDED, DELIVERIES
from scgi.supervisor.child import Child
from scgi.supervisor.doors import Doors
from scgi.supervisor.policy import LATER, PATIENCE, SOON, Census, IdleRecord, Pace, PoolPolicy, decide
from scgi.supervisor.roster import Roster

_QUICK: Final = 0.006  # seconds that a peer may take while nobody is idle
_LONG: Final = 0.25  # seconds in a queue after which a client may have given up
_AS_IT_WAS: Final = 0.1  # seconds
_QUIET: Final = 0.5  # seconds without a call, after which the next one counts as the first


class Growth:
    """Watches `roster` and `doors` for the policy's sake, the doors through the pool's own poll set."""

    def __init__(self, policy: PoolPolicy, roster: Roster, doors: Doors, poller: select.poll) -> None:
        self.policy = policy
        self.look_at: float | None = time.monotonic()  # when to look whether a worker more is needed
        self.on = True  # until the pool ends
        self._roster = roster
        self._doors = doors
        self._poller = poller
        self._watching = False  # the listeners are in the poll set
        self._idle_record = IdleRecord(policy.maximum)
        self._pace = Pace()
        self._starved_until = 0.0  # as far as it was looked at
        self._calls = 0  # in a row, soon after the bell was armed, that made no worker more
        self._armed_at = 0.0
        self._finished = 0  # requests, at the last look
        self._looked_at = 0.0
        self._full_since = 0.0  # nobody idle, no room for more, and somebody waiting
        self._finished_then = 0

    def soon(self, now: float) -> None:
        """Something has changed: look in a moment."""
        if self.on:
            self.look_at = min(self.look_at or now + SOON, now + SOON)

    def someone_came(self, now: float) -> None:
        """A connection has come while everybody was busy."""
        self._watch(False)
        self.soon(now)

    def nobody_is_idle(self, now: float) -> None:
        """A worker says so."""
        self._idle_record.note(0, now)
        self._pace = replace(self._pace, rested=False)
        self._calls = self._calls + 1 if now - self._armed_at < _QUIET else 0
        self.soon(now)

    def start_over(self) -> None:
        """Workers die: no bursts of them."""
        self._pace = Pace()

    def end(self) -> None:
        """No worker more."""
        self.on = False
        self._watch(False)
        self.look_at = None

    def look(self, now: float) -> int:
        """Count; returns how many workers to fork."""
        serving = self._roster.serving()
        finished = self._roster.finished()
        idle = self._roster.idle_threads()
        stalled = finished == self._finished
        held = not idle and self._roster.nudge_waiting(now, _QUICK) and stalled
        waiting = self._doors.somebody_waits() or bool(self._roster.board.memory[DELIVERIES])
        census = Census(
            workers=len(serving) - self._roster.held(now),
            starting=sum(not child.ready for child in serving),
            idle=idle,
            waiting=waiting,
            stalled=stalled,
            delay=self._delay(finished - self._finished, now - self._looked_at),
            starved=waiting and not idle and bool(serving) and self._starved(serving, stalled, now),
            calls=self._calls,
        )
        decision = decide(self.policy, census, self._pace)
        self._finished, self._looked_at = finished, now
        self._pace = decision.pace
        self.look_at = None if decision.look_in is None else now + decision.look_in
        if held:
            self.look_at = min(self.look_at or now + LATER, now + LATER)
        self._watch(decision.watch)
        full = census.waiting and not idle and census.workers >= self.policy.maximum
        if self._waits_long(full, finished, now):
            self._roster.board.memory[ARMED] = CROWDED
        elif decision.arm:
            self._armed_at = now
            self._roster.board.memory[ARMED] = 1
            if not self._roster.idle_threads():  # turned busy meanwhile, and saw nothing to ring
                self.soon(now)
        if decision.spawn:
            self._calls = 0
        return decision.spawn

    def look_again(self, now: float) -> None:
        """Once in a while: whatever was missed is found."""
        if self.on and self.look_at is None and not self._watching:
            self.look_at = now

    def surplus(self, now: float) -> list[Child]:
        """Those who have not been needed for the policy's time."""
        idle = self._roster.longest_idle_first()
        self._idle_record.note(len(idle), now)
        beyond_minimum = sum(child.ready for child in self._roster.serving()) - self.policy.minimum
        spare = min(self._idle_record.surplus(self.policy.idle_timeout, now), beyond_minimum)
        return idle[: max(0, spare)]

    def _waits_long(self, full: bool, finished: int, now: float) -> bool:
        """Whether those in the queues wait so long, at the pace since nobody was idle, that some may have left."""
        if not full or not self._full_since:
            self._full_since = now if full else 0.0
            self._finished_then = finished
            return False
        seconds = now - self._full_since
        if seconds < _LONG:
            return False
        done = max(0, finished - self._finished_then)  # workers that die take their count along
        return not done or (self._doors.queue() or 0) * seconds / done > _LONG

    def _delay(self, finished: int, seconds: float) -> float:
        """How long the last in the queue will wait at this pace; asked for only where the policy needs it."""
        if finished <= 0 or self._pace.streak + 1 < PATIENCE or (waiting := self._doors.queue()) is None:
            return SOON
        return waiting * seconds / finished

    def _starved(self, workers: list[Child], stalled: bool, now: float) -> bool:
        """Whether one more could only take time from these; for a while, if they get on, as it was."""
        if stalled or now >= self._starved_until:
            starved = processors_are_taken() and all(is_runnable(child.pid) for child in workers)
            self._starved_until = now + _AS_IT_WAS if starved else 0.0
        return self._starved_until > 0

    def _watch(self, on: bool) -> None:
        """Have the listeners in the poll set, or not."""
        if on != self._watching:
            self._watching = on
            for listener in self._doors.listeners:
                if on:
                    self._poller.register(listener.sock, select.POLLIN)
                else:
                    self._poller.unregister(listener.sock)
