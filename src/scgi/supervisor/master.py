"""The master: owns listeners, signals and the control socket, and never imports the application.

What serves are generations, pools in processes of their own (see `succession`); while there is none, connections wait
in the listeners. At the end it closes the doors, and the pools serve what has arrived.

One loop, one wait; signal handlers do nothing but write to the bell. Imports `net`, `status`, `log`, its neighbours.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scgi import log as scgi_log
from scgi.errors import ExitCode, ScgiError
from scgi.log.sink import dropped_by_all
from scgi.net.listen import Listener
from scgi.net.notify import Notifier
from scgi.status.scoreboard import DRAINING
from scgi.status.snapshot import Counters, GenerationRow, ListenerRow, LobbyRow, Snapshot, worker_rows
from scgi.supervisor.bell import Bell
from scgi.supervisor.companion import Companion
from scgi.supervisor.control import Control, Order
from scgi.supervisor.doors import Doors
from scgi.supervisor.generation import Generation, GenerationPlan
from scgi.supervisor.inquiries import Inquiries
from scgi.supervisor.orphans import adopt_all
from scgi.supervisor.plan import Phase
from scgi.supervisor.succession import Succession
from scgi.version import __version__

log = logging.getLogger("scgi.master")

_TICK: Final = 1.0
_LATER: Final = 2.0  # pools end their workers themselves when time is up; so much later they are killed
_FAULT: Final = 0.2  # seconds of rest after an error that nobody has thought of
_WINDING: Final = 0.02  # between looks while the server ends


@dataclass(frozen=True, slots=True)
class MasterPlan:
    """What the master needs to know besides its listeners."""

    generation: GenerationPlan
    backlog: int = 0
    graceful_timeout: float = 30.0
    companions: Sequence[Companion] = ()
    private: tuple[int, ...] = ()  # descriptors that no child may keep
    reopened: Callable[[], None] = lambda: None  # called when log files were opened anew
    http: str | None = None


class Master:
    """Runs generations of `plan` on `listeners` until `bell` tells it to stop."""

    def __init__(
        self, plan: MasterPlan, listeners: list[Listener], bell: Bell, control: Control | None, notifier: Notifier
    ) -> None:
        self.plan = plan
        self.bell = bell
        self.control = control
        self.notifier = notifier
        self.doors = Doors(listeners)
        self.phase = Phase.SERVING
        self._deadline = float("inf")
        self._left = False  # the doors that could not be shut
        self._next_tick = 0.0
        self._born = time.monotonic()
        self._stops: list[Order] = []  # who asked for the end
        self._poller = select.poll()
        self._inquiries = Inquiries()
        self.succession = Succession(plan.generation, plan.graceful_timeout, listeners, self._poller, notifier)

    def run(self) -> ExitCode:
        """Serve until TERM or INT. Raises `ScgiError` if the first generation does not come to serve."""
        self.bell.wire()
        adopt_all()
        self._poller.register(self.bell.out, select.POLLIN)
        if self.control is not None:
            self._poller.register(self.control, select.POLLIN)
        try:
            while self.phase is Phase.SERVING or self._companions() or self.succession or self._must_wait():
                self._guarded_turn()
        finally:
            for generation in self.succession.live():
                generation.kill()
            for companion in self._companions():
                companion.stop(signal.SIGKILL)
        return ExitCode.OK

    def _must_wait(self) -> bool:
        """Whether the end has to wait although no process is left."""
        return self.phase is Phase.DRAINING and time.monotonic() < self._deadline and self._somebody_is_left()

    def _guarded_turn(self) -> None:
        """Whatever goes wrong here, the pools serve: it is said, and the loop goes on."""
        try:
            self._turn()
        except ScgiError:  # nothing has ever served
            raise
        except Exception:
            log.exception("the master's own fault, or this machine's: it goes on")
            time.sleep(_FAULT)

    def _turn(self) -> None:
        """Once round: wait, hear, reap, decide."""
        self._poller.poll(self._patience())
        now = time.monotonic()
        self._hear(now)
        if self.control is not None:
            for order in self.control.hear(now):
                self._obey(order, now)
        self.succession.hear()
        self._inquiries.tend(self.succession.live(), now)
        self._reap(now)
        if self.phase is Phase.SERVING:
            self.succession.tend(now, lambda: self._foreign_to(None), self.bell.lifeline_out)
            self._tend_companions(now)
        else:
            self._wind_down(now)
        if now >= self._next_tick:
            self._tick(now)

    def _patience(self) -> float:
        """Milliseconds until something is due."""
        now = time.monotonic()
        due = [self._next_tick]
        if self.phase is not Phase.SERVING:
            due.append(now + _WINDING)
        else:
            due.append(self.succession.due(now))
        if any(one.child is None and one.wanted for one in self.plan.companions) and self.succession.served:
            due.append(now + 0.1)
        return max(0.0, (min(due) - now) * 1000 + 0.1)

    def _companions(self) -> list[Companion]:
        return [companion for companion in self.plan.companions if companion.child is not None]

    # Being told.

    def _hear(self, now: float) -> None:
        for byte in self.bell.hear():
            if byte == signal.SIGTERM and self.phase is Phase.SERVING:
                self._drain(now)
            elif byte in (signal.SIGTERM, signal.SIGINT):
                self._stop_at_once(now)
            elif byte == signal.SIGHUP and self.phase is Phase.SERVING:
                self.succession.wish_for("SIGHUP")
            elif byte == signal.SIGUSR1:
                scgi_log.reopen()
                self.plan.reopened()
                for generation in self.succession.live():
                    generation.send(signal.SIGUSR1)
                for companion in self._companions():
                    companion.signal(signal.SIGUSR1)
            elif byte == signal.SIGUSR2:
                for generation in self.succession.live():
                    if generation.serves:  # before, its signals are the application's
                        generation.send(signal.SIGUSR2)

    def _obey(self, order: Order, now: float) -> None:
        """What came over the control socket."""
        if order.name == "status":
            order.finish({"status": self._status(now)})
        elif order.name == "stacks":
            self._inquiries.ask(order, self.succession.live(), now)
        elif self.phase is not Phase.SERVING and order.name == "reload":
            order.finish({"done": False, "reason": "the server is stopping", "traceback": ""})
        elif order.name == "reload":
            self.succession.wish_for("scgi reload", order)
        elif order.name == "stop":
            log.info("asked to stop over the control socket")
            order.say({"stopping": True, "pid": os.getpid()})
            self._stops.append(order)
            if self.phase is Phase.SERVING:
                self._drain(now)
        else:
            order.finish({"error": f"expected status, stacks, reload or stop, got {order.name!r}"})

    def _status(self, now: float) -> dict[str, Any]:
        rows = []
        for generation in (*self.succession.bereft, *self.succession.live()):
            board = generation.board
            workers = worker_rows(board, self.plan.generation.threads, generation.workers, now)
            guard = f"off: {generation.guard_off}" if generation.guard_off else "on"
            rows.append(
                GenerationRow(
                    generation.number,
                    generation.pid,
                    generation.state.value,
                    generation.age,
                    workers,
                    guard,
                    LobbyRow(*board.lobby()),
                )
            )
        totals, reloads = self.succession.totals(), self.succession.reloads
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            uptime=now - self._born,
            phase="serving" if self.phase is Phase.SERVING else "stopping",
            listeners=tuple(ListenerRow(*door, self.plan.backlog) for door in self.doors.queues()),
            generations=tuple(rows),
            counters=Counters(
                totals.requests,
                reloads,
                self.succession.failed_reloads,
                totals.deaths,
                totals.refused,
                dropped_by_all(),
            ),
            http=self.plan.http,
        ).as_json()

    # At every tick.

    def _tick(self, now: float) -> None:
        self._next_tick = now + min(_TICK, self.notifier.watchdog_interval or _TICK)
        self.notifier.alive()
        if self.phase is not Phase.SERVING or self.succession.incoming is not None:
            self.notifier.extend(_TICK + 10)
        self.succession.remind_orphans(now)
        if self.phase is Phase.SERVING:
            self.succession.watch(now)

    def _tend_companions(self, now: float) -> None:
        for one in self.plan.companions:
            if one.wanted and one.child is None and self.succession.served and not one.budget.remaining(now):
                lobby = self.plan.generation.passages.descriptors()
                close = (*self._foreign_to(one), *self.succession.descriptors(), *self.doors.descriptors(), *lobby)
                one.start(close, self.bell.lifeline_out, now)

    def _reap(self, now: float) -> None:
        for companion in self.plan.companions:
            companion.reap(now)
        others = {one.child.pid for one in self._companions() if one.child is not None}
        self.succession.reap(now, self.phase is Phase.SERVING, others)

    def _foreign_to(self, companion: Companion | None) -> tuple[int, ...]:
        """What a child that is no companion, or this one, is not to keep open."""
        fds = [self.bell.out, self.bell.into, self.bell.lifeline_in, *self.plan.private]
        fds += [sock.fileno() for one in self.plan.companions if one is not companion for sock in one.sockets]
        return (*fds, *(self.control.descriptors() if self.control is not None else ()))

    # The end.

    def _drain(self, now: float) -> None:
        """TERM: serve what has arrived, then end; at the latest after the graceful timeout."""
        log.info("stopping: what has arrived is served, for at most %g s", self.plan.graceful_timeout)
        self.notifier.stopping("Stopping: what has arrived is served")
        self.phase = Phase.DRAINING
        self._deadline = now + self.plan.graceful_timeout
        for companion in self.plan.companions:
            companion.stop()
        self.succession.refuse_wishes("the server is stopping")

    def _stop_at_once(self, now: float) -> None:
        if self.phase is Phase.STOPPING:
            return
        log.info("stopping at once")
        if self.phase is Phase.SERVING:
            self.notifier.stopping("Stopping at once")
        self.phase = Phase.STOPPING
        self._deadline = min(self._deadline, now)
        for companion in self.plan.companions:
            companion.stop()
        self.succession.refuse_wishes("the server is stopping")
        incoming = self.succession.incoming
        if incoming is not None and not incoming.has_begun():
            incoming.kill()
        for generation in self.succession.live():
            generation.tell("stop")

    def _wind_down(self, now: float) -> None:
        """One step further: companions first, then the doors, then the pools; KILL when it is time."""
        if now >= self._deadline + _LATER:
            for generation in self.succession.live():
                generation.kill()
            for companion in self._companions():
                companion.stop(signal.SIGKILL)
            for generation in self.succession.bereft:
                if generation.orphans is not None:
                    generation.orphans.send(signal.SIGKILL)
        elif self.phase is Phase.DRAINING and not self._companions():
            incoming, current = self.succession.incoming, self.succession.current
            if current is None and self._somebody_is_left():  # the pool has died: another answers those who wait
                self.succession.tend(now, lambda: self._foreign_to(None), self.bell.lifeline_out)
                if self.succession.incoming is not None and not self.doors.open:
                    self.succession.incoming.board.memory[DRAINING] = 1  # its workers will find the doors shut
                if self.succession.current is None:
                    return
                if not self.doors.open:
                    self._tell_to_drain(self.succession.current, now)
            elif incoming is not None and not (incoming.serves or incoming.has_begun()):
                incoming.kill()
            if self.doors.open:
                self._close_doors(now)
            elif not self._left and self.doors.leave_ajar(now, self.succession.totals().requests, self._at_work()):
                self._left = True
                for generation in self.succession.live():
                    generation.tell("leave", seconds=max(0.0, self._deadline - now))

    def _at_work(self) -> int:
        """How many requests may be in hand."""
        return sum(len(one.workers) for one in self.succession.live()) * self.plan.generation.threads

    def _somebody_is_left(self) -> bool:
        """Whether somebody waits to be answered by whoever still can."""
        if self.doors.open:
            return self.doors.somebody_waits()
        return not self._left and self.doors.left() > 0

    def _close_doors(self, now: float) -> None:
        """No more connections; those in the queues of our own listeners are still accepted."""
        for generation in self.succession.live():
            self._tell_to_drain(generation, now)
        self.doors.close(now, self.succession.totals().requests)

    def _tell_to_drain(self, generation: Generation, now: float) -> None:
        generation.board.memory[DRAINING] = 1
        generation.tell("drain", seconds=max(0.0, self._deadline - now))
