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
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from scgi import log as scgi_log
from scgi.errors import ExitCode
from scgi.net.listen import Listener
from scgi.status.scoreboard import ARMED, DRAINING, Report, Scoreboard, Stage
from scgi.supervisor.child import Child, describe_end, fork
from scgi.supervisor.companion import Companion
from scgi.supervisor.policy import Census, IdleRecord, PoolPolicy, RestartBudget, decide
from scgi.workers.blocking import NUDGE, Worker, WorkerPlan

log = logging.getLogger("scgi.pool")

_TICK: Final = 1.0
_LOOK_AGAIN: Final = 0.002  # between "nobody is idle" and a fork: most requests are over by then
_SETTLED: Final = 1.0  # a worker that dies younger than this died at once
_HURRY: Final = 0.3  # at a stop "at once": between TERM and KILL
_KILLED: Final = 2.0  # after KILL nothing is waited for longer than this
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
    """Runs workers on `listeners` in this process until it is told to stop. `load` was done before."""

    def __init__(self, plan: PoolPlan, listeners: list[Listener]) -> None:
        self.plan = plan
        self.listeners = listeners
        self.threads = plan.worker.threads
        # Twice the maximum: while children are replaced, the old ones finish in their slots.
        self.board = Scoreboard(2 * plan.policy.maximum * self.threads)
        self.children: dict[int, Child] = {}
        self.phase = Phase.SERVING
        self.budget = RestartBudget()
        self.idle_record = IdleRecord(plan.policy.maximum)
        self.burst = 1
        self.look_at: float | None = None  # when to look whether a worker more is needed
        self.watching = False  # the listeners are in the poll set
        self.to_replace: list[Child] = []
        self.deadline = float("inf")
        self.doors_closed = False
        self.ever_ready = False
        self.failure = ExitCode.OK
        self.next_tick = 0.0

    def run(self) -> ExitCode:
        """Serve until TERM, INT or a failure at the start; returns the exit status for the process."""
        with self._wired():
            gc.collect()
            gc.freeze()
            try:
                self.look_at = time.monotonic()
                while self.phase is Phase.SERVING or self.children or self._companions():
                    self._turn()
                    if self.phase is Phase.STOPPING and time.monotonic() > self.deadline + _KILLED:
                        log.error("processes that do not end are left behind: %s", sorted(self.children))
                        break
            finally:
                gc.unfreeze()
                self._leave_nothing()
        return self.failure

    @contextlib.contextmanager
    def _wired(self) -> Iterator[None]:
        """The bell, the lifeline and the signal handlers, for as long as the pool runs."""
        self.bell_out, self.bell_in = os.pipe()
        self.lifeline_out, self.lifeline_in = os.pipe()
        os.set_blocking(self.bell_out, False)
        os.set_blocking(self.bell_in, False)
        self.poller = select.poll()
        self.poller.register(self.bell_out, select.POLLIN)
        before = {signum: signal.signal(signum, _noted) for signum in _SIGNALS}
        wakeup = signal.set_wakeup_fd(self.bell_in, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for signum, handler in before.items():
                signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
            for descriptor in (self.bell_out, self.bell_in, self.lifeline_out, self.lifeline_in):
                os.close(descriptor)

    def _turn(self) -> None:
        """Once round: wait, hear, reap, decide."""
        for fd, _ in self.poller.poll(self._patience()):
            if fd != self.bell_out:  # a connection waits while everybody was busy: see whether it still does
                self._watch(False)
                self.look_at = time.monotonic() + _LOOK_AGAIN
        now = time.monotonic()
        self._hear(now)
        self._reap(now)
        self._notice_ready()
        if now >= self.next_tick:
            self._tick(now)
        if self.phase is Phase.SERVING:
            self._size(now)
            self._replace(now)
            self._tend_companions(now)
        else:
            self._wind_down(now)

    def _patience(self) -> float | None:
        """Milliseconds until something is due; None for ever."""
        now = time.monotonic()
        due = [self.next_tick] if self.children else []
        if self.look_at is not None:
            due.append(self.look_at)
        if self.phase is not Phase.SERVING:
            due.append(now + 0.02)
        elif rest := self.budget.remaining(now):
            due.append(now + rest)
        if any(companion.child is None and companion.wanted for companion in self.plan.companions):
            due.append(now + 0.1)
        return max(0.0, (min(due) - now) * 1000 + 0.5) if due else None

    # Hearing.

    def _hear(self, now: float) -> None:
        heard = b""
        with contextlib.suppress(BlockingIOError):
            heard = os.read(self.bell_out, 4096)
        for byte in set(heard):
            if byte == 0:  # a worker: nobody is idle
                self.idle_record.note(0, now)
                self.look_at = self.look_at or now + _LOOK_AGAIN
        for byte in heard:
            if byte == signal.SIGTERM:
                self._drain(now) if self.phase is Phase.SERVING else self._stop_at_once(now)
            elif byte == signal.SIGINT:
                self._stop_at_once(now)
            elif byte == signal.SIGHUP and self.phase is Phase.SERVING:
                self._replace_all()
            elif byte == signal.SIGUSR1:
                scgi_log.reopen()
                for child in self.children.values():
                    child.send(signal.SIGUSR1)

    # How many.

    def _size(self, now: float) -> None:
        """Look at the pool and do what the policy says."""
        policy = self.plan.policy
        due = self.look_at is not None and now >= self.look_at
        if not due and len(self.children) >= policy.minimum and (self.children or self.watching):
            return
        serving = [child for child in self.children.values() if not child.retiring]
        census = Census(
            workers=len(serving),
            starting=sum(not child.ready for child in serving),
            idle=self.board.idle(),
            waiting=self._somebody_waits(),
            resting=self.budget.remaining(now) > 0,
        )
        decision = decide(policy, census, self.burst)
        self.burst = decision.burst
        self.look_at = None
        for _ in range(decision.spawn):
            if not self._spawn(now):
                break
        if self.budget.remaining(now):
            self.look_at = now + self.budget.remaining(now)
        elif decision.spawn or census.starting:
            self.look_at = now + _LOOK_AGAIN
        elif census.idle:
            self._watch(False)
            self._arm()
        elif census.workers < policy.maximum:
            self._watch(True)
        else:
            self._watch(False)  # at the maximum: nothing to do for whoever waits

    def _arm(self) -> None:
        """Ask to be rung when nobody is idle."""
        self.board.memory[ARMED] = 1

    def _watch(self, on: bool) -> None:
        """Have the listeners in the poll set, or not."""
        if on == self.watching:
            return
        self.watching = on
        for listener in self.listeners:
            if on:
                self.poller.register(listener.sock, select.POLLIN)
            else:
                self.poller.unregister(listener.sock)

    def _somebody_waits(self) -> bool:
        poller = select.poll()
        for listener in self.listeners:
            poller.register(listener.sock, select.POLLIN)
        return bool(poller.poll(0))

    def _tick(self, now: float) -> None:
        """Once a second: who is not needed, and who waits for a peer."""
        self.next_tick = now + _TICK
        if self.phase is not Phase.SERVING:
            return
        serving = [child for child in self.children.values() if not child.retiring]
        idle = [child for child in serving if self._is_idle(child)]
        self.idle_record.note(len(idle), now)
        surplus = self.idle_record.surplus(self.plan.policy.idle_timeout, now)
        decision = decide(self.plan.policy, Census(len(serving), idle=len(idle), surplus=surplus))
        idle.sort(key=lambda child: self.board.report(child.first_slot).started)
        for child in idle[: decision.retire]:
            log.info("worker %d was not needed for %g s and ends", child.pid, self.plan.policy.idle_timeout)
            self._retire(child)
        for child in self.children.values():
            if child.retiring and self._is_idle(child):
                child.send(signal.SIGTERM)  # the first came just before its accept and was missed
            self._nudge_waiting(child)
        if not self.watching and self.look_at is None:
            self._arm()

    def _is_idle(self, child: Child) -> bool:
        return all(self.board.memory[64 + slot] == Stage.IDLE for slot in self._slots(child))

    def _slots(self, child: Child) -> range:
        return range(child.first_slot, child.first_slot + self.threads)

    def _nudge_waiting(self, child: Child) -> None:
        """Whoever has been reading or writing since the last tick waits for its peer: take it to the slow path."""
        for slot in self._slots(child):
            stage = self.board.stages()[slot]
            if stage not in (Stage.READING, Stage.WRITING):
                child.nudged.pop(slot, None)
                continue
            serial = self.board.report(slot).serial
            before = child.nudged.get(slot, (-1, -1, 0))
            looks = before[2] + 1 if before[:2] == (serial, stage) else 0
            child.nudged[slot] = (serial, stage, looks)
            if 1 <= looks <= 3:  # more than once: one that comes just before the system call is missed
                child.send(NUDGE)

    # Children.

    def _spawn(self, now: float, replaces: Child | None = None) -> bool:
        """Fork a worker; False if there is no room or fork failed (said once in a while)."""
        first = self._free_slot()
        if first is None:
            return False
        for slot in range(first, first + self.threads):
            self.board.clear(slot)
            self.board.mark(slot, Stage.STARTING)

        def work() -> int:
            return _work(self.plan.worker, self.listeners, self.board, first, self.bell_in, self.lifeline_out)

        try:
            theirs = [sock.fileno() for companion in self.plan.companions for sock in companion.sockets]
            pid = fork(work, (self.bell_out, self.lifeline_in, *theirs), self.lifeline_out)
        except OSError as error:
            for slot in range(first, first + self.threads):
                self.board.clear(slot)
            log.error("cannot fork a worker: %s; trying again in half a second", error.strerror)
            self.budget.rest(0.5, now)
            return False
        self.children[pid] = Child(pid, now, first, replaces=replaces)
        log.info("worker %d started (%d of at most %d)", pid, len(self.children), self.plan.policy.maximum)
        return True

    def _free_slot(self) -> int | None:
        taken = {child.first_slot for child in self.children.values()}
        free = (slot for slot in range(0, self.board.slots, self.threads) if slot not in taken)
        return next(free, None)

    def _notice_ready(self) -> None:
        """A worker is ready when it waits for its first request."""
        stages = self.board.stages()
        for child in self.children.values():
            if not child.ready and all(stages[slot] != Stage.STARTING for slot in self._slots(child)):
                child.ready = self.ever_ready = True
                if child.replaces is not None:
                    self._retire(child.replaces)
                    child.replaces = None

    def _retire(self, child: Child) -> None:
        """Ask a worker to end after what it is doing."""
        child.retiring = True
        child.send(signal.SIGTERM)

    def _replace_all(self) -> None:
        """HUP: a fresh child for each, and the old ones go one for one as the fresh ones are ready."""
        self.to_replace = [child for child in self.children.values() if not child.retiring]
        log.info("replacing %d workers", len(self.to_replace))

    def _replace(self, now: float) -> None:
        while self.to_replace and not self.budget.remaining(now):
            child = self.to_replace[0]
            if child.pid in self.children and not self._spawn(now, replaces=child):
                return
            self.to_replace.pop(0)
            self.look_at = now + _LOOK_AGAIN

    def _reap(self, now: float) -> None:
        for child in list(self.children.values()):
            status = child.wait_status()
            if status is None:
                continue
            del self.children[child.pid]
            reports = [self.board.report(slot) for slot in self._slots(child)]
            for slot in self._slots(child):
                self.board.clear(slot)
            self._mourn(child, status, reports, now)
        for companion in self.plan.companions:
            companion.reap(now)

    def _mourn(self, child: Child, status: int, reports: list[Report], now: float) -> None:
        """Say how a worker ended, and what that means for the next."""
        age = now - child.born
        expected = child.retiring or self.phase is not Phase.SERVING
        if status == 0:
            log.info("worker %d ended after %.1f s", child.pid, age)
        else:
            busy = [report for report in reports if report.stage in (Stage.READING, Stage.RUNNING, Stage.WRITING)]
            doing = "; ".join(report.describe(child.pid) for report in busy) or "between requests"
            log.log(
                logging.INFO if expected else logging.ERROR,
                "worker %d %s %s; its age was %.1f s", child.pid, describe_end(status), doing, age,
            )  # fmt: skip
        if expected:
            return
        if child.replaces is not None and child.replaces.pid in self.children:
            self.to_replace.append(child.replaces)
        if child.ready and age >= _SETTLED:
            self.budget.survived()
        elif status:
            if self.plan.policy.minimum and not self.ever_ready:
                log.error("the first worker could not start; see above")
                self.failure = ExitCode.BOOT_FAILED
                self._stop_at_once(now)
                return
            if rest := self.budget.lost(now):
                log.warning("workers die at once: the next one starts in %.1f s", rest)
        self.look_at = self.look_at or now

    # Companions: started before the workers, so that they are small.

    def _companions(self) -> list[Companion]:
        return [companion for companion in self.plan.companions if companion.child is not None]

    def _tend_companions(self, now: float) -> None:
        for companion in self.plan.companions:
            if companion.wanted and companion.child is None and not companion.budget.remaining(now):
                companion.start((self.bell_out, self.bell_in, self.lifeline_in), self.lifeline_out)

    # The end.

    def _drain(self, now: float) -> None:
        """TERM: serve what has arrived, then end; at the latest after the graceful timeout."""
        log.info("stopping: what has arrived is served, for at most %g s", self.plan.graceful_timeout)
        self.phase = Phase.DRAINING
        self.deadline = now + self.plan.graceful_timeout
        self._watch(False)
        self.look_at = None
        for companion in self.plan.companions:
            companion.stop()

    def _stop_at_once(self, now: float) -> None:
        if self.phase is not Phase.STOPPING:
            log.info("stopping at once")
        self.phase = Phase.STOPPING
        self.deadline = min(self.deadline, now + _HURRY)
        self._watch(False)
        self.look_at = None
        for companion in self.plan.companions:
            companion.stop()
        for child in self.children.values():
            self._retire(child)

    def _wind_down(self, now: float) -> None:
        if now >= self.deadline:
            if self.phase is Phase.DRAINING:
                log.warning("%d workers are still busy after the graceful timeout: killed", len(self.children))
                self.phase = Phase.STOPPING
            for child in (*self.children.values(), *(c.child for c in self._companions() if c.child)):
                child.send(signal.SIGKILL)
        elif self.phase is Phase.DRAINING and not self._companions():
            if not self.doors_closed:
                self._close_doors(now)
            owned = any(listener.owned for listener in self.listeners)
            for child in self.children.values():
                if self._is_idle(child):
                    child.send(NUDGE if owned else signal.SIGTERM)

    def _close_doors(self, now: float) -> None:
        """No more connections; those in the queues are still accepted (measured ways, see the design page)."""
        self.doors_closed = True
        if not self.children and self._somebody_waits():
            self._spawn(now)
        self.board.memory[DRAINING] = 1
        for listener in self.listeners:
            if listener.owned:
                listener.unlink()
                if listener.sock.family == socket.AF_UNIX:
                    with contextlib.suppress(OSError):
                        listener.sock.shutdown(socket.SHUT_RD)
                else:
                    listener.sock.listen(0)
                    listener.sock.setblocking(False)
            else:
                log.info("%s stays open for the next server", listener.address)

    def _leave_nothing(self) -> None:
        for child in self.children.values():
            child.send(signal.SIGKILL)
        self.board.close()


def _work(
    plan: WorkerPlan, listeners: list[Listener], board: Scoreboard, first_slot: int, bell: int, lifeline: int
) -> int:
    """A worker's whole life, in the child."""
    signal.signal(signal.SIGUSR1, lambda signum, frame: scgi_log.reopen())
    worker = Worker(
        plan,
        [listener.sock for listener in listeners],
        [listener.owned for listener in listeners],
        board,
        first_slot,
        bell,
        lifeline,
    )
    return worker.run()


def _noted(signum: int, frame: object) -> None:
    """The signal's number is in the bell already (`signal.set_wakeup_fd`)."""
