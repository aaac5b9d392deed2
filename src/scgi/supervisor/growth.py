"""When to look at the queues and the scoreboard, and how many workers more that makes.

Workers ring the bell when nobody is idle; everything else is looked at when it is due. What is decided is `policy`'s;
here are the clock and the eyes. Imports `net`, `status` and its neighbours.
"""

from __future__ import annotations

import select
import time
from dataclasses import replace

from scgi.status.scoreboard import ARMED
from scgi.supervisor.child import Child
from scgi.supervisor.doors import Doors
from scgi.supervisor.policy import PATIENCE, SOON, Census, IdleRecord, Pace, PoolPolicy, decide
from scgi.supervisor.roster import Roster


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
        self._finished = 0  # requests, at the last look
        self._looked_at = 0.0

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
        census = Census(
            workers=len(serving),
            starting=sum(not child.ready for child in serving),
            idle=self._roster.idle_threads(),
            waiting=self._doors.somebody_waits(),
            stalled=finished == self._finished,
            delay=self._delay(finished - self._finished, now - self._looked_at),
        )
        decision = decide(self.policy, census, self._pace)
        self._finished, self._looked_at = finished, now
        self._pace = decision.pace
        self.look_at = None if decision.look_in is None else now + decision.look_in
        self._watch(decision.watch)
        if decision.arm:
            self._roster.board.memory[ARMED] = 1
            if not self._roster.idle_threads():  # turned busy meanwhile, and saw nothing to ring
                self.soon(now)
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

    def _delay(self, finished: int, seconds: float) -> float:
        """How long the last in the queue will wait at this pace; asked for only where the policy needs it."""
        if finished <= 0 or self._pace.streak + 1 < PATIENCE or (waiting := self._doors.queue()) is None:
            return SOON
        return waiting * seconds / finished

    def _watch(self, on: bool) -> None:
        """Have the listeners in the poll set, or not."""
        if on != self._watching:
            self._watching = on
            for listener in self._doors.listeners:
                if on:
                    self._poller.register(listener.sock, select.POLLIN)
                else:
                    self._poller.unregister(listener.sock)
