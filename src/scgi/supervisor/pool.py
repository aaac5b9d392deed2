"""One generation of workers: forked on demand, healed, shrunk, replaced, drained.

Workers accept for themselves. One that turns busy and sees nobody idle rings the *bell* (a byte in a pipe, the same
that signals are written to); the pool looks a moment later, and if a connection still waits and nobody is idle it
forks. Everything else happens at a tick, once a second: shrinking, and nudging workers that wait for a peer.

One loop, one wait; signal handlers do nothing but write to the bell. Imports `workers`, `net`, `status`, `log`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from scgi import log as scgi_log
from scgi.errors import ExitCode
from scgi.net.listen import Listener
from scgi.status.scoreboard import ARMED, DRAINING
from scgi.supervisor.child import Child
from scgi.supervisor.companion import Companion
from scgi.supervisor.policy import SOON, Census, IdleRecord, Pace, PoolPolicy, RestartBudget, decide
from scgi.supervisor.roster import Loss, Roster, Wiring
from scgi.workers.blocking import NUDGE, WorkerPlan

log = logging.getLogger("scgi.pool")

_TICK: Final = 1.0
_SETTLED: Final = 1.0  # a worker that dies younger than this died at once
_HURRY: Final = 0.3  # at a stop "at once": between TERM and KILL
_KILLED: Final = 2.0  # after KILL nothing is waited for longer than this
_WINDING: Final = 0.02  # between looks while the pool ends
_FORK_FAILED: Final = 0.5  # rest after a fork that failed
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)


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
    """Runs workers on `listeners` in this process until it is told to stop. The application is loaded already."""

    def __init__(self, plan: PoolPlan, listeners: list[Listener]) -> None:
        self.plan = plan
        self.listeners = listeners
        # Twice the maximum: while workers are replaced, the old ones finish in their slots.
        self.roster = Roster(plan.worker, listeners, 2 * plan.policy.maximum)
        self.phase = Phase.SERVING
        self.exit_code = ExitCode.OK
        self._budget = RestartBudget()
        self._idle_record = IdleRecord(plan.policy.maximum)
        self._pace = Pace()
        self._finished = 0  # requests, at the last look
        self._look_at: float | None = None  # when to look whether a worker more is needed
        self._next_tick = 0.0
        self._watching = False  # the listeners are in the poll set
        self._to_replace: list[Child] = []
        self._ever_ready = False
        self._deadline = float("inf")
        self._doors_closed = False

    def run(self) -> ExitCode:
        """Serve until TERM, INT or a failure at the start; returns the exit status for the process."""
        with self._wired():
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

    @contextlib.contextmanager
    def _wired(self) -> Iterator[None]:
        """The bell, the lifeline and the signal handlers, for as long as the pool runs."""
        bell_out, bell_in = os.pipe()
        lifeline_out, lifeline_in = os.pipe()
        os.set_blocking(bell_out, False)
        os.set_blocking(bell_in, False)
        theirs = [sock.fileno() for companion in self.plan.companions for sock in companion.sockets]
        self._bell = bell_out
        self._wiring = Wiring(bell_in, lifeline_out, (bell_out, lifeline_in, *theirs))
        self._poller = select.poll()
        self._poller.register(bell_out, select.POLLIN)
        before = {signum: signal.signal(signum, _noted) for signum in _SIGNALS}
        wakeup = signal.set_wakeup_fd(bell_in, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for signum, handler in before.items():
                signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
            for descriptor in (bell_out, bell_in, lifeline_out, lifeline_in):
                os.close(descriptor)

    def _turn(self) -> None:
        """Once round: wait, hear, reap, decide."""
        ready = self._poller.poll(self._patience())
        now = time.monotonic()
        if any(fd != self._bell for fd, _ in ready):  # a connection has come while everybody was busy
            self._watch(False)
            self._look_soon(now)
        self._hear(now)
        self._reap(now)
        for child in self.roster.newly_ready():
            self._ever_ready = True
            if child.replaces is not None:
                self.roster.retire(child.replaces)
                child.replaces = None
        if self.phase is Phase.SERVING:
            self._replace(now)
            self._tend_companions(now)
            if now >= self._next_tick:
                self._tick(now)
            if self._look_at is not None and now >= self._look_at and not self._budget.remaining(now):
                self._look(now)
        else:
            self._wind_down(now)

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
        heard = b""
        with contextlib.suppress(BlockingIOError):
            heard = os.read(self._bell, 4096)
        for byte in heard:
            if byte == 0:  # nobody is idle
                self._idle_record.note(0, now)
                self._pace = replace(self._pace, rested=False)
                self._look_soon(now)
            elif byte == signal.SIGTERM and self.phase is Phase.SERVING:
                self._drain(now)
            elif byte in (signal.SIGTERM, signal.SIGINT):
                self._stop_at_once(now)
            elif byte == signal.SIGHUP and self.phase is Phase.SERVING:
                self._to_replace = self.roster.serving()
                log.info("replacing %d workers", len(self._to_replace))
            elif byte == signal.SIGUSR1:
                scgi_log.reopen()
                for child in self.roster:
                    child.send(signal.SIGUSR1)

    # How many.

    def _look_soon(self, now: float) -> None:
        self._look_at = min(self._look_at or now + SOON, now + SOON)

    def _look(self, now: float) -> None:
        """Count, and do what the policy says."""
        serving = self.roster.serving()
        finished = self.roster.finished()
        census = Census(
            workers=len(serving),
            starting=sum(not child.ready for child in serving),
            idle=self.roster.board.idle(),
            waiting=self._somebody_waits(),
            stalled=finished == self._finished,
        )
        decision = decide(self.plan.policy, census, self._pace)
        self._finished = finished
        self._pace = decision.pace
        self._look_at = None if decision.look_in is None else now + decision.look_in
        for _ in range(decision.spawn):
            if not self._spawn(now):
                break
        self._watch(decision.watch)
        if decision.arm:
            self.roster.board.memory[ARMED] = 1

    def _watch(self, on: bool) -> None:
        """Have the listeners in the poll set, or not."""
        if on != self._watching:
            self._watching = on
            for listener in self.listeners:
                if on:
                    self._poller.register(listener.sock, select.POLLIN)
                else:
                    self._poller.unregister(listener.sock)

    def _somebody_waits(self) -> bool:
        poller = select.poll()
        for listener in self.listeners:
            poller.register(listener.sock, select.POLLIN)
        return bool(poller.poll(0))

    def _tick(self, now: float) -> None:
        """Once a second: who is not needed, and who waits for a peer."""
        self._next_tick = now + _TICK
        policy, roster = self.plan.policy, self.roster
        idle = roster.longest_idle_first()
        self._idle_record.note(len(idle), now)
        spare = min(self._idle_record.surplus(policy.idle_timeout, now), len(roster.serving()) - policy.minimum)
        for child in idle[: max(0, spare)]:
            log.info("worker %d was not needed for %g s and ends", child.pid, policy.idle_timeout)
            roster.retire(child)
        for child in roster:
            if child.retiring and roster.is_idle(child):
                child.send(signal.SIGTERM)  # the first came just before its accept and was missed
        roster.nudge_waiting()
        if self._look_at is None and not self._watching:
            self._look_at = now  # whatever was missed is found now

    # Coming and going.

    def _spawn(self, now: float, replaces: Child | None = None) -> bool:
        """Fork a worker; False if there is no room or fork failed."""
        try:
            child = self.roster.spawn(self._wiring, now, replaces)
        except OSError as error:
            log.error("cannot fork a worker: %s; trying again in %g s", error.strerror, _FORK_FAILED)
            self._budget.rest(_FORK_FAILED, now)
            return False
        if child is not None:
            log.info("worker %d started (%d of at most %d)", child.pid, len(self.roster), self.plan.policy.maximum)
        return child is not None

    def _replace(self, now: float) -> None:
        """HUP: a fresh worker for each, and the old ones go one for one as the fresh ones are ready."""
        while self._to_replace and not self._budget.remaining(now):
            child = self._to_replace[0]
            if child.pid in self.roster.children and not self._spawn(now, replaces=child):
                return
            self._to_replace.pop(0)
            self._look_soon(now)

    def _reap(self, now: float) -> None:
        for loss in self.roster.reap():
            self._mourn(loss, now)
        for companion in self.plan.companions:
            companion.reap(now)

    def _mourn(self, loss: Loss, now: float) -> None:
        """Say how a worker ended, and judge what that means for the next."""
        child = loss.child
        age = now - child.born
        expected = child.retiring or self.phase is not Phase.SERVING
        if loss.status == 0:
            log.info("worker %d ended; its age was %.1f s", child.pid, age)
        else:
            log.log(logging.INFO if expected else logging.ERROR, "%s; its age was %.1f s", loss, age)
        if expected:
            return
        self._look_soon(now)
        if child.replaces is not None and child.replaces.pid in self.roster.children:
            self._to_replace.append(child.replaces)
        if loss.status == 0 or (child.ready and age >= _SETTLED):
            self._budget.survived()
        elif self.plan.policy.minimum and not self._ever_ready:
            log.error("the first worker could not start; see above")
            self.exit_code = ExitCode.BOOT_FAILED
            self._stop_at_once(now)
        elif rest := self._budget.lost(now):
            log.warning("workers die at once: the next one starts in %.1f s", rest)

    def _companions(self) -> list[Child]:
        return [companion.child for companion in self.plan.companions if companion.child is not None]

    def _tend_companions(self, now: float) -> None:
        for companion in self.plan.companions:
            if companion.wanted and companion.child is None and not companion.budget.remaining(now):
                companion.start((self._bell, self._wiring.bell, *self._wiring.foreign[1:2]), self._wiring.lifeline)

    # The end.

    def _end_phase(self, phase: Phase, deadline: float) -> None:
        self.phase = phase
        self._deadline = min(self._deadline, deadline)
        self._watch(False)
        self._look_at = None
        for companion in self.plan.companions:
            companion.stop()

    def _drain(self, now: float) -> None:
        """TERM: serve what has arrived, then end; at the latest after the graceful timeout."""
        log.info("stopping: what has arrived is served, for at most %g s", self.plan.graceful_timeout)
        self._end_phase(Phase.DRAINING, now + self.plan.graceful_timeout)

    def _stop_at_once(self, now: float) -> None:
        if self.phase is not Phase.STOPPING:
            log.info("stopping at once")
            self._end_phase(Phase.STOPPING, now + _HURRY)
        for child in self.roster:
            self.roster.retire(child)

    def _wind_down(self, now: float) -> None:
        """One step further: companions first, then the doors, then the workers; KILL when it is time."""
        if now >= self._deadline:
            if self.phase is Phase.DRAINING:
                log.warning("%d workers are still busy after the graceful timeout: killed", len(self.roster))
                self.phase = Phase.STOPPING
            for child in (*self.roster, *self._companions()):
                child.send(signal.SIGKILL)
        elif self.phase is Phase.DRAINING and not self._companions():
            if not self._doors_closed:
                self._close_doors(now)
            owned = any(listener.owned for listener in self.listeners)
            for child in self.roster:
                if self.roster.is_idle(child):
                    child.send(NUDGE if owned else signal.SIGTERM)

    def _close_doors(self, now: float) -> None:
        """No more connections; those in the queues are still accepted (measured ways, see the design page)."""
        self._doors_closed = True
        if not len(self.roster) and self._somebody_waits():
            self._spawn(now)
        self.roster.board.memory[DRAINING] = 1
        for listener in self.listeners:
            if not listener.owned:
                log.info("%s stays open for the next server", listener.address)
                continue
            listener.unlink()
            if listener.sock.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    listener.sock.shutdown(socket.SHUT_RD)
            else:
                listener.sock.listen(0)
                listener.sock.setblocking(False)


def _noted(signum: int, frame: object) -> None:
    """The signal's number is in the bell already (`signal.set_wakeup_fd`)."""
