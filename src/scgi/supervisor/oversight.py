"""Requests that take long: seen from outside, in the scoreboard, a few times a second.

One that is older than a moment is guarded (see `guard`). One that has run for `slow_log` seconds gets its stacks into
the log. One that has run for `timeout` seconds is condemned: its worker is nudged to raise `RequestTimeout` in it (see
`workers.interrupt`), again and again until it has. Where that is in vain the stacks are logged and the worker is
killed, after the requests of its other threads; the guard answers the client. Only time inside the application counts,
anew whenever the peer has taken something.

Nothing here waits: `look` does what is due. Imports `workers`, `status` and its neighbours.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Final

from scgi.status.scoreboard import ANSWERING, BUSY, IN_APPLICATION, Sight, Stage, own_id
from scgi.status.snapshot import WorkerFacts, worker_rows
from scgi.supervisor.child import Child
from scgi.supervisor.crew import Crew, Loss
from scgi.supervisor.guard import Guard
from scgi.supervisor.stacks import Stacks
from scgi.workers.blocking import NUDGE

log = logging.getLogger("scgi.pool")

PERIOD: Final = 0.2  # seconds between looks
_MOMENT: Final = 0.2  # seconds after which a request is worth an eye
_TO_LAND: Final = 1.0  # seconds from the first nudge until the exception is raised
_TO_UNWIND: Final = 3.0  # seconds from then until the request is over
_STANDSTILL: Final = 0.02  # seconds for a worker to stop

Row = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Case:
    """A request that takes long. Times are monotonic seconds; 0: not yet."""

    child: Child
    slot: int
    serial: int
    condemned: float = 0.0
    landed: float = 0.0
    slow: bool = False  # that was logged
    doomed: bool = False  # its worker is to be killed


class Oversight:
    """Of one pool's workers. `timeout` and `slow_log` are seconds; 0 is none."""

    def __init__(self, roster: Crew, guard: Guard, timeout: float, slow_log: float) -> None:
        self._roster = roster
        self._board = roster.board
        self._guard = guard
        self._timeout = timeout
        self._slow_log = slow_log
        self._stacks = Stacks()
        self._cases: dict[tuple[int, int, int], _Case] = {}
        self._sentenced: dict[int, tuple[Child, float]] = {}  # workers that serve what they have, and until when
        self._next = 0.0

    @property
    def stacks_fd(self) -> int:
        """Where workers write their stacks."""
        return self._stacks.descriptor

    def due(self, now: float) -> float:
        """When `look` wants to be called (monotonic seconds)."""
        needed = self._timeout or self._slow_log or self._guard.on
        return min(self._next if needed else inf, self._stacks.due(now))

    def look(self, now: float) -> None:
        """Who takes long, and what is to be done about it?"""
        self._stacks.step(now)
        if now < self._next:
            return
        self._next = now + PERIOD
        self._guard.let_go_of_ended()
        cases = {}
        stages = self._board.stages()
        for child in self._roster:
            self._guard.try_on(child, self._stacks.descriptor)
            for slot in self._roster.slots(child):
                if stages[slot] in ANSWERING and (case := self._case(child, slot, now)) is not None:
                    cases[child.pid, slot, case.serial] = case
        self._cases = cases
        for child, until in list(self._sentenced.values()):
            self._execute(child, until, now)

    def mourned(self, loss: Loss, now: float) -> None:
        """A worker has ended: whoever it was answering, and the guard has a duplicate of, is answered now."""
        child = loss.child
        for slot, report in zip(self._roster.slots(child), loss.reports, strict=True):
            if report.stage in IN_APPLICATION and not report.begun:
                self._guard.answer(child, slot, report, 504 if report.condemned else 502)
            else:
                self._guard.release(slot)
        self._sentenced.pop(child.pid, None)
        self._stacks.forget(child)

    def stacks(self, now: float, answer: Callable[[Row | None], None] | None = None) -> None:
        """Take the stacks of all workers. `answer` is called with a row for each, and with None when that was all;
        without it they go into the log."""
        waiting = {child.pid for child in self._roster}

        def tell(child: Child, stacks: str) -> None:
            row = self._row(child, stacks)
            if answer is None:
                doing = "; ".join("{request} for {age:.1f} s ({id})".format(**one) for one in row["current"])
                _log(logging.WARNING, f"worker {child.pid}, {doing or row['state']}", stacks)
                return
            answer(row)
            waiting.discard(child.pid)
            if not waiting:
                answer(None)

        for child in self._roster:
            self._stacks.take(child, functools.partial(tell, child))
        if answer is not None and not waiting:
            answer(None)

    def descriptors(self) -> list[int]:
        """What children must not keep open: workers write to the file, so nothing."""
        return []

    def close(self) -> None:
        self._stacks.close()

    # One request.

    def _case(self, child: Child, slot: int, now: float) -> _Case | None:
        """A request's case, brought up to date; None if it is no case yet."""
        sight = self._board.sight(slot)
        case = self._cases.get((child.pid, slot, sight.serial))
        if case is None:
            if now - sight.started < _MOMENT:
                return None
            case = _Case(child, slot, sight.serial)
            self._board.take_interest(slot)
            self._guard.watch(child, slot, sight)
        if sight.stage == Stage.RUNNING and not case.doomed:
            self._judge(case, sight, now)
        return case

    def _judge(self, case: _Case, sight: Sight, now: float) -> None:
        """It is in the application: for too long?"""
        ran = now - sight.since
        if 0 < self._slow_log <= ran and not case.slow:
            case.slow = True
            self._stacks.take(case.child, functools.partial(self._tell_slow, case, now))
        if sight.landed:
            case.landed = case.landed or now
            if now - case.landed >= _TO_UNWIND:
                self._doom(case)
        elif 0 < self._timeout <= ran:
            if not case.condemned:
                case.condemned = now
                self._board.take_interest(case.slot)  # first: a request that is condemned ends the long way
                self._board.condemn(case.slot, case.serial)
            case.child.send(NUDGE)
            if now - case.condemned >= _TO_LAND:
                self._doom(case)
        elif case.condemned:  # its peer has taken something just then
            case.condemned = 0.0
            self._board.condemn(case.slot, 0)

    def _tell_slow(self, case: _Case, then: float, stacks: str) -> None:
        if self._is_current(case) is not None:
            _log(logging.WARNING, f"slow: {self._about(case)} in worker {case.child.pid}", stacks)

    def _is_current(self, case: _Case) -> Sight | None:
        """How the request stands, if its worker still runs it."""
        if case.child.pid not in self._roster.children:
            return None
        sight = self._board.sight(case.slot)
        return sight if sight.serial == case.serial and sight.stage == Stage.RUNNING else None

    def _about(self, case: _Case) -> str:
        """The request, its id, and how long it has run."""
        report = self._board.report(case.slot)
        ran = time.monotonic() - self._board.sight(case.slot).since
        number = case.slot - case.child.first_slot + 1 if self._roster.threads > 1 else 0
        name = report.request_id or own_id(case.child.pid, number, case.serial)
        return f"{report.request} (request {name}) has run for {ran:.1f} s"

    # A request that does not let itself be interrupted.

    def _doom(self, case: _Case) -> None:
        case.doomed = True
        self._stacks.take(case.child, functools.partial(self._sentence, case))

    def _sentence(self, case: _Case, stacks: str) -> None:
        """Where it hangs is known: the worker has to go, unless the request has ended meanwhile."""
        now = time.monotonic()
        sight = self._is_current(case)
        if sight is None or (sight.landed and not case.landed):  # something has happened just then
            case.doomed = False
            return
        why = "RequestTimeout has not ended it" if sight.landed else "it could not be interrupted"
        about = f"{self._about(case)}, more than the timeout of {self._timeout:g} s"
        _log(logging.ERROR, f"worker {case.child.pid} is killed: {about}; {why}", stacks)
        if case.child.pid not in self._sentenced:
            self._sentenced[case.child.pid] = case.child, now + self._timeout
        if self._neighbours(case.child):
            self._answer_at_once(case)
            self._roster.retire(case.child, now)
        self._execute(*self._sentenced[case.child.pid], now)

    def _neighbours(self, child: Child) -> list[int]:
        """The slots of its other threads that serve somebody and may come to an end."""
        doomed = {case.slot for case in self._cases.values() if case.child is child and case.doomed}
        stages = self._board.stages()
        return [slot for slot in self._roster.slots(child) if stages[slot] in BUSY and slot not in doomed]

    def _execute(self, child: Child, until: float, now: float) -> None:
        if now >= until or not self._neighbours(child):
            child.send(signal.SIGKILL)

    def _answer_at_once(self, case: _Case) -> None:
        """The client need not wait for the worker's end. That stands still meanwhile, so that only one answers."""
        if not hasattr(os, "waitid"):
            return
        case.child.send(signal.SIGSTOP)
        try:
            if _stands_still(case.child.pid):
                sight = self._is_current(case)
                if sight is not None and not sight.begun:
                    self._guard.answer(case.child, case.slot, self._board.report(case.slot), 504)
        finally:
            case.child.send(signal.SIGCONT)

    # On demand.

    def _row(self, child: Child, stacks: str) -> Row:
        """A worker, for `scgi stacks`."""
        facts = WorkerFacts(child.pid, child.born, child.first_slot, child.retiring)
        (row,) = worker_rows(self._board, self._roster.threads, [facts], time.monotonic())
        return {"pid": row.pid, "state": row.state, "current": [asdict(one) for one in row.current], "stacks": stacks}


def _log(level: int, message: str, stacks: str) -> None:
    record = log.makeRecord(log.name, level, __file__, 0, "%s", (message,), None)
    record.exc_text = stacks.rstrip() or "no stack could be had"
    log.handle(record)


def _stands_still(pid: int) -> bool:
    """Wait, not long, until all threads of a child that was sent a SIGSTOP have stopped."""
    end = time.monotonic() + _STANDSTILL
    while time.monotonic() < end:
        try:
            if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None:
                return True
        except ChildProcessError:
            return False
        time.sleep(0.0005)
    return False
