"""One generation of workers: forked on demand, healed, shrunk, replaced, drained.

Workers accept for themselves. One that turns busy and sees nobody idle rings the *bell* (a byte in a pipe, the same
that signals are written to); the pool looks a moment later, and if a connection still waits and nobody is idle it
forks. Everything else happens at a tick, once a second: shrinking, and nudging workers that wait for a peer.

One loop, one wait; signal handlers do nothing but write to the bell. Imports `workers`, `net`, `status`, `log`.
"""

from __future__ import annotations

import gc
import logging
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from scgi import log as scgi_log
from scgi.errors import ExitCode
from scgi.net.listen import Listener
from scgi.status.scoreboard import ARMED, DRAINING
from scgi.supervisor.bell import Bell
from scgi.supervisor.child import FORK_FAILED, Child
from scgi.supervisor.companion import Companion
from scgi.supervisor.doors import Doors
from scgi.supervisor.policy import PATIENCE, SOON, Census, IdleRecord, Pace, PoolPolicy, RestartBudget, decide
from scgi.supervisor.roster import Loss, Roster, Wiring
from scgi.workers.blocking import NUDGE, WorkerPlan

log = logging.getLogger("scgi.pool")

_TICK: Final = 1.0
_SETTLED: Final = 1.0  # a worker that dies younger than this died at once
_HURRY: Final = 0.3  # at a stop "at once": between TERM and KILL
_KILLED: Final = 2.0  # after KILL nothing is waited for longer than this
_WINDING: Final = 0.02  # between looks while the pool ends


class Phase(Enum):
    """The pool's life; it never goes back."""

    SERVING = 0
    DRAINING = 1  # what has arrived is served
    STOPPING = 2  # at once


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What a pool needs to know besides its listeners."""

    worker: WorkerPlan
    policy: PoolPolicy = field(default_factory=PoolPolicy)
    graceful_timeout: float = 30.0
    companions: Sequence[Companion] = ()


class Pool:
    """Runs workers on `listeners` in this process until `bell` tells it to stop. The application is loaded already."""

    def __init__(self, plan: PoolPlan, listeners: list[Listener], bell: Bell) -> None:
        self.plan = plan
        self.bell = bell
        self.doors = Doors(listeners)
        # Twice the maximum: while workers are replaced, the old ones finish in their slots.
        self.roster = Roster(plan.worker, listeners, 2 * plan.policy.maximum)
        self.phase = Phase.SERVING
        self.exit_code = ExitCode.OK
        self._budget = RestartBudget()
        self._idle_record = IdleRecord(plan.policy.maximum)
        self._pace = Pace()
        self._finished = 0  # requests, at the last look
        self._looked_at = 0.0
        self._look_at: float | None = None  # when to look whether a worker more is needed
        self._next_tick = 0.0
        self._poller = select.poll()
        self._watching = False  # the listeners are in the poll set
        self._to_replace: list[Child] = []  # after a HUP
        self._ever_ready = False
        self._deadline = float("inf")
        self._growing = True  # until the doors close, or all stops

    def run(self) -> ExitCode:
        """Serve until TERM, INT or a failure at the start; returns the exit status for the process."""
        self.bell.wire()
        theirs = [sock.fileno() for companion in self.plan.companions for sock in companion.sockets]
        bell = self.bell
        self._wiring = Wiring(bell.into, bell.lifeline_out, (bell.out, bell.lifeline_in, *theirs))
        self._poller.register(bell.out, select.POLLIN)
        gc.collect()
        gc.freeze()
        try:
            self._look_at = time.monotonic()
            while self.phase is Phase.SERVING or len(self.roster) or self._companions():
                self._turn()
                if self.phase is Phase.STOPPING and time.monotonic() > self._deadline + _KILLED:
                    log.error("processes that do not end are left behind: %s", sorted(self.roster.children))
                    break
        finally:
            gc.unfreeze()
            for child in self.roster:
                child.send(signal.SIGKILL)
            self.roster.board.close()
        return self.exit_code

    def _turn(self) -> None:
        """Once round: wait, hear, reap, decide."""
        ready = self._poller.poll(self._patience())
        now = time.monotonic()
        if any(fd != self.bell.out for fd, _ in ready):  # a connection has come while everybody was busy
            self._watch(False)
            self._look_soon(now)
        self._hear(now)
        self._reap(now)
        for child in self.roster.newly_ready():
            self._ever_ready = True
            if child.replaces is not None:
                self.roster.retire(child.replaces, now)
                child.replaces = None
        if self.phase is Phase.SERVING:
            self._replace(now)
            self._tend_companions(now)
        else:
            self._wind_down(now)
        if now >= self._next_tick:
            self._tick(now)
        if self._look_at is not None and now >= self._look_at and not self._budget.remaining(now):
            self._look(now)

    def _patience(self) -> float | None:
        """Milliseconds until something is due; None for ever."""
        now = time.monotonic()
        due = [self._next_tick] if len(self.roster) else []
        if self.phase is not Phase.SERVING:
            due.append(now + _WINDING)
        elif rest := self._budget.remaining(now):
            due.append(now + rest)
        elif self._look_at is not None:
            due.append(self._look_at)
        if any(companion.child is None and companion.wanted for companion in self.plan.companions):
            due.append(now + 0.1)
        return max(0.0, (min(due) - now) * 1000 + 0.1) if due else None

    def _hear(self, now: float) -> None:
        """Read the bell: signals by their numbers, 0 from workers."""
        for byte in self.bell.hear():
            if byte == 0:  # nobody is idle
                self._idle_record.note(0, now)
                self._pace = replace(self._pace, rested=False)
                self._look_soon(now)
            elif byte == signal.SIGTERM and self.phase is Phase.SERVING:
                self._drain(now)
            elif byte in (signal.SIGTERM, signal.SIGINT):
                self._stop_at_once(now)
            elif byte == signal.SIGHUP and self.phase is Phase.SERVING:
                replaced = {child.replaces.pid for child in self.roster if child.replaces is not None}
                self._to_replace = [child for child in self.roster.serving() if child.pid not in replaced]
                log.info("replacing %d workers", len(self._to_replace))
            elif byte == signal.SIGUSR1:
                scgi_log.reopen()
                for child in (*self.roster, *self._companions()):
                    child.send(signal.SIGUSR1)

    # How many.

    def _look_soon(self, now: float) -> None:
        if self._growing:
            self._look_at = min(self._look_at or now + SOON, now + SOON)

    def _look(self, now: float) -> None:
        """Count, and do what the policy says."""
        serving = self.roster.serving()
        finished = self.roster.finished()
        census = Census(
            workers=len(serving),
            starting=sum(not child.ready for child in serving),
            idle=self.roster.idle_threads(),
            waiting=self.doors.somebody_waits(),
            stalled=finished == self._finished,
            delay=self._delay(finished - self._finished, now - self._looked_at),
        )
        decision = decide(self.plan.policy, census, self._pace)
        self._finished, self._looked_at = finished, now
        self._pace = decision.pace
        self._look_at = None if decision.look_in is None else now + decision.look_in
        for _ in range(decision.spawn):
            if not self._spawn(now):
                break
        self._watch(decision.watch)
        if decision.arm:
            self.roster.board.memory[ARMED] = 1
            if not self.roster.idle_threads():  # turned busy meanwhile, and saw nothing to ring
                self._look_soon(now)

    def _delay(self, finished: int, seconds: float) -> float:
        """How long the last in the queue will wait at this pace; asked for only where the policy needs it."""
        if finished <= 0 or self._pace.streak + 1 < PATIENCE or (waiting := self.doors.queue()) is None:
            return SOON
        return waiting * seconds / finished

    def _watch(self, on: bool) -> None:
        """Have the listeners in the poll set, or not."""
        if on != self._watching:
            self._watching = on
            for listener in self.doors.listeners:
                if on:
                    self._poller.register(listener.sock, select.POLLIN)
                else:
                    self._poller.unregister(listener.sock)

    def _tick(self, now: float) -> None:
        """Once a second: who waits for a peer, who was asked to end, who is not needed."""
        self._next_tick = now + _TICK
        self.roster.nudge_waiting()
        self.roster.remind_retiring(now, self.plan.graceful_timeout)
        if not self._growing:
            return
        self._shrink(now)
        for child in self.roster.serving():
            if child.ready and now - child.born >= _SETTLED:
                self._budget.settled(child.born)
        if self._look_at is None and not self._watching:
            self._look_at = now  # whatever was missed is found now

    def _shrink(self, now: float) -> None:
        policy, roster = self.plan.policy, self.roster
        idle = roster.longest_idle_first()
        self._idle_record.note(len(idle), now)
        beyond_minimum = sum(child.ready for child in roster.serving()) - policy.minimum
        spare = min(self._idle_record.surplus(policy.idle_timeout, now), beyond_minimum)
        for child in idle[: max(0, spare)]:
            log.info("worker %d was not needed for %g s and ends", child.pid, policy.idle_timeout)
            roster.retire(child, now)

    # Coming and going.

    def _spawn(self, now: float, replaces: Child | None = None) -> bool:
        """Fork a worker; False if there is no room or fork failed."""
        try:
            child = self.roster.spawn(self._wiring, now, replaces)
        except OSError as error:
            log.error("cannot fork a worker: %s; trying again in %g s", error.strerror, FORK_FAILED)
            self._budget.rest(FORK_FAILED, now)
            return False
        if child is None:
            return False
        if replaces is None:
            count, most = len(self.roster.serving()), self.plan.policy.maximum
            log.info("worker %d started (%d of at most %d)", child.pid, count, most)
        else:
            log.info("worker %d started in place of %d", child.pid, replaces.pid)
        return True

    def _replace(self, now: float) -> None:
        """HUP: a fresh worker for each, and the old ones go one for one as the fresh ones are ready."""
        for child in list(self._to_replace):
            if child.pid in self.roster.children and not child.retiring:
                if not child.ready:
                    continue  # it is about to take another's place itself
                if self._budget.remaining(now) or not self._spawn(now, replaces=child):
                    return
            self._to_replace.remove(child)

    def _reap(self, now: float) -> None:
        for loss in self.roster.reap():
            self._mourn(loss, now)
        for companion in self.plan.companions:
            companion.reap(now)

    def _mourn(self, loss: Loss, now: float) -> None:
        """Say how a worker ended, and judge what that means for the next."""
        child = loss.child
        age = now - child.born
        failed = loss.status != 0
        asked = child.retiring or self.phase is Phase.STOPPING
        if failed:
            by_us = asked and loss.status in (signal.SIGTERM, signal.SIGKILL)
            log.log(logging.INFO if by_us else logging.ERROR, "%s; its age was %.1f s", loss, age)
        else:
            log.info("worker %d ended; its age was %.1f s", child.pid, age)
        self._look_soon(now)
        if asked or not (failed or self._growing):
            return
        if child.replaces is not None:
            self._to_replace.append(child.replaces)
        if (child.ready and age >= _SETTLED) or (loss.served and not failed):
            self._budget.settled(child.born)
        elif self.plan.policy.minimum and not (self._ever_ready or child.ready):
            log.error("the first worker could not start; see above")
            self.exit_code = ExitCode.BOOT_FAILED
            self._stop_at_once(now)
        else:
            self._pace = Pace()
            if rest := self._budget.lost(now):
                log.warning("workers die at once: the next one starts in %.1f s", rest)
        if failed and child.ready and self.phase is Phase.DRAINING and not self.roster.serving():
            self._spawn(now)  # for those that are still in the queue

    def _companions(self) -> list[Child]:
        return [companion.child for companion in self.plan.companions if companion.child is not None]

    def _tend_companions(self, now: float) -> None:
        for companion in self.plan.companions:
            if companion.wanted and companion.child is None and not companion.budget.remaining(now):
                companion.start((self.bell.out, self.bell.into, self.bell.lifeline_in), self.bell.lifeline_out, now)

    # The end.

    def _drain(self, now: float) -> None:
        """TERM: serve what has arrived, then end; at the latest after the graceful timeout."""
        log.info("stopping: what has arrived is served, for at most %g s", self.plan.graceful_timeout)
        self.phase = Phase.DRAINING
        self._deadline = now + self.plan.graceful_timeout
        for companion in self.plan.companions:
            companion.stop()

    def _stop_at_once(self, now: float) -> None:
        if self.phase is Phase.STOPPING:
            return
        log.info("stopping at once")
        self.phase = Phase.STOPPING
        self._deadline = min(self._deadline, now + _HURRY)
        self._stop_growing()
        for companion in self.plan.companions:
            companion.stop()
        self._retire_all(now)

    def _stop_growing(self) -> None:
        self._growing = False
        self._watch(False)
        self._look_at = None

    def _wind_down(self, now: float) -> None:
        """One step further: companions first, then the doors, then the workers; KILL when it is time."""
        if now >= self._deadline:
            if self.phase is Phase.DRAINING:
                log.warning("%d workers are still busy after the graceful timeout: killed", len(self.roster))
                self._stop_at_once(now)
            for child in (*self.roster, *self._companions()):
                child.send(signal.SIGKILL)
        elif self.phase is Phase.DRAINING and not self._companions():
            if self.doors.open:
                self._close_doors(now)
            elif self.doors.leave_ajar(now):
                self._retire_all(now)
            for child in self.roster:
                if not self.roster.is_busy(child):  # again: a signal that comes just before `accept` is missed
                    child.send(signal.SIGTERM if child.retiring else NUDGE)

    def _close_doors(self, now: float) -> None:
        """No more connections; those in the queues of our own listeners are still accepted."""
        if not self.roster.serving() and self.doors.somebody_waits():
            self._spawn(now)
        self._stop_growing()
        self.roster.board.memory[DRAINING] = 1
        self.doors.close(now)
        if self.doors.all_lent:
            self._retire_all(now)
        elif self.doors.some_lent:
            for child in self.roster:  # the busy ones too: what is lent is no more to be listened to
                child.send(NUDGE)

    def _retire_all(self, now: float) -> None:
        for child in self.roster:
            self.roster.retire(child, now)
