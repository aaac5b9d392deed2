"""The master: owns listeners, signals and the control socket, and never imports the application.

It starts generations: pools in processes of their own, the next beside the old. The new one serves when its first
worker is ready; the old one's workers go one for one as more become ready. If it fails, it goes, and the old one
serves on. A pool that dies or no longer answers is replaced the same way; connections wait in the listeners meanwhile.

One loop, one wait; signal handlers do nothing but write to the bell. Imports `net`, `status`, `log`, its neighbours.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from scgi import __version__
from scgi import log as scgi_log
from scgi.errors import AppLoadError, ExitCode, ScgiError
from scgi.net.listen import Listener
from scgi.net.notify import Notifier
from scgi.status.scoreboard import DRAINING
from scgi.status.snapshot import Counters, GenerationRow, ListenerRow, Snapshot, worker_rows
from scgi.supervisor import orphans
from scgi.supervisor.bell import Bell
from scgi.supervisor.child import FORK_FAILED, describe_end
from scgi.supervisor.companion import Companion
from scgi.supervisor.control import Control, Order
from scgi.supervisor.doors import Doors
from scgi.supervisor.generation import Failure, Generation, GenerationPlan, State
from scgi.supervisor.policy import RestartBudget
from scgi.supervisor.pool import Phase
from scgi.supervisor.title import set_title

log = logging.getLogger("scgi.master")

_TICK: Final = 1.0
_WATCH: Final = 5.0  # seconds without a sign of life after which a pool is replaced
_SETTLED: Final = 1.0  # a generation that served for less than this died at once
_LATER: Final = 2.0  # pools end their workers themselves when time is up; so much later they are killed
_WINDING: Final = 0.02  # between looks while the server ends


@dataclass(frozen=True, slots=True)
class MasterPlan:
    """What the master needs to know besides its listeners."""

    generation: GenerationPlan
    backlog: int = 0
    graceful_timeout: float = 30.0
    companions: Sequence[Companion] = ()
    reopened: Callable[[], None] = lambda: None  # called when log files were opened anew
    http: str | None = None


@dataclass(slots=True)
class Wish:
    """Somebody wants new code to serve; wishes that come before a generation starts are one."""

    why: str
    orders: list[Order] = field(default_factory=list)
    told: bool = False  # what it waits for

    def tell(self, text: str) -> None:
        for order in self.orders:
            order.say({"progress": text})

    def finish(self, message: dict[str, object]) -> None:
        for order in self.orders:
            order.finish(message)


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
        self.current: Generation | None = None  # serves
        self.incoming: Generation | None = None  # is loading
        self.outgoing: list[Generation] = []  # finish what they have in hand
        self.reloads = self.failed_reloads = 0
        self._wish: Wish | None = None
        self._granted: Wish | None = None  # what the incoming generation was started for
        self._number = 0
        self._served = 0  # generations that have come to serve
        self._past_requests = self._past_deaths = 0  # of generations that are gone
        self._budget = RestartBudget()
        self._deadline = float("inf")
        self._next_tick = 0.0
        self._born = time.monotonic()
        self._stops: list[Order] = []  # who asked for the end
        self._orphans = orphans.Orphans()
        self._poller = select.poll()

    def run(self) -> ExitCode:
        """Serve until TERM or INT. Raises `ScgiError` if the first generation does not come to serve."""
        self.bell.wire()
        set_title("master")
        self._orphans.adopt_all()
        self._poller.register(self.bell.out, select.POLLIN)
        if self.control is not None:
            self._poller.register(self.control, select.POLLIN)
        try:
            while self.phase is Phase.SERVING or self._live() or self._companions() or self._orphans:
                self._turn()
        finally:
            for generation in self._live():
                generation.kill()
            for companion in self._companions():
                companion.stop(signal.SIGKILL)
        return ExitCode.OK

    def _turn(self) -> None:
        """Once round: wait, hear, reap, decide."""
        self._poller.poll(self._patience())
        now = time.monotonic()
        self._hear(now)
        if self.control is not None:
            for order in self.control.hear(now):
                self._obey(order, now)
        for generation in self._live():
            generation.hear()
            generation.link.flush()
        self._reap(now)
        if self.phase is Phase.SERVING:
            self._tend(now)
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
        elif self.current is None and self.incoming is None:
            due.append(now + self._budget.remaining(now))
        if any(one.child is None and one.wanted for one in self.plan.companions) and self._served:
            due.append(now + 0.1)
        if self.incoming is not None and self.incoming.child is not None:
            due.append(self.incoming.child.born + self.plan.generation.start_timeout)
        return max(0.0, (min(due) - now) * 1000 + 0.1)

    def _live(self) -> list[Generation]:
        """Generations that have a process."""
        found = [*self.outgoing, self.current, self.incoming]
        return [generation for generation in found if generation is not None]

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
                self._wish_for("SIGHUP")
            elif byte == signal.SIGUSR1:
                scgi_log.reopen()
                self.plan.reopened()
                for generation in self._live():
                    if generation.state is not State.LOADING and generation.child is not None:
                        generation.child.send(signal.SIGUSR1)
                for companion in self._companions():
                    companion.signal(signal.SIGUSR1)

    def _obey(self, order: Order, now: float) -> None:
        """What came over the control socket."""
        if order.name == "status":
            order.finish({"status": self._status(now)})
        elif self.phase is not Phase.SERVING and order.name == "reload":
            order.finish({"done": False, "reason": "the server is stopping", "traceback": ""})
        elif order.name == "reload":
            self._wish_for("scgi reload", order)
        elif order.name == "stop":
            log.info("asked to stop over the control socket")
            order.say({"stopping": True, "pid": os.getpid()})
            self._stops.append(order)
            if self.phase is Phase.SERVING:
                self._drain(now)
        else:
            order.finish({"error": f"expected status, reload or stop, got {order.name!r}"})

    def _wish_for(self, why: str, order: Order | None = None) -> None:
        if self._wish is None:
            self._wish = Wish(why)
        if order is not None:
            self._wish.orders.append(order)
            self._wish.told = False

    def _status(self, now: float) -> dict[str, Any]:
        requests, deaths = self._past_requests, self._past_deaths
        rows = []
        for generation in sorted(self._live(), key=lambda one: one.number):
            served, died = generation.board.totals()
            requests, deaths = requests + served, deaths + died
            workers = worker_rows(generation.board, self.plan.generation.threads, generation.workers, now)
            rows.append(
                GenerationRow(generation.number, generation.pid, generation.state.value, generation.age, workers)
            )
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            uptime=now - self._born,
            phase="serving" if self.phase is Phase.SERVING else "stopping",
            listeners=tuple(ListenerRow(*door, self.plan.backlog) for door in self.doors.queues()),
            generations=tuple(rows),
            counters=Counters(requests, self.reloads, self.failed_reloads, deaths),
            http=self.plan.http,
        ).as_json()

    # Generations.

    def _tend(self, now: float) -> None:
        """The incoming one's progress, and whether another is wanted."""
        if self.incoming is not None:
            self._judge(self.incoming, now)
        if self.current is not None:
            self._hand_over(self.current)
        for companion in self.plan.companions:
            if self._served and companion.wanted and not companion.child and not companion.budget.remaining(now):
                companion.start(self._foreign_to(companion), self.bell.lifeline_out, now)
        if self.phase is not Phase.SERVING or self.incoming is not None or self._budget.remaining(now):
            return
        if self.current is None:
            self._start(self._take_wish() or Wish("a start"), now)
        elif self._wish is not None:
            if not self.outgoing:
                self._start(self._take_wish() or Wish(""), now)
            elif not self._wish.told:
                self._wish.told = True
                old = self.outgoing[0]
                text = f"generation {old.number} still finishes {old.serving() or len(old.workers)} workers' requests"
                log.info("the reload waits: %s (for at most %g s)", text, self.plan.graceful_timeout)
                self._wish.tell(f"waiting: {text}")

    def _take_wish(self) -> Wish | None:
        wish, self._wish = self._wish, None
        return wish

    def _start(self, wish: Wish, now: float) -> None:
        """Fork a generation beside what there is."""
        at_first = self.current.serving() if self.current else 0
        generation = Generation(self._number + 1, self.plan.generation, at_first)
        try:
            generation.start(self.doors.listeners, self._foreign_to(None), self.bell.lifeline_out)
        except OSError as error:
            log.error("cannot fork a pool: %s; trying again in %g s", error.strerror, FORK_FAILED)
            self._budget.rest(FORK_FAILED, now)
            self._wish = self._wish or (wish if self.current else None)
            return
        self._number += 1
        self.incoming = generation
        self._granted = wish
        self._poller.register(generation.link, select.POLLIN)
        log.info("generation %d starts as process %d (%s)", generation.number, generation.pid, wish.why)
        if self.current is not None:
            self.notifier.reloading(f"Reloading: generation {generation.number} starts")
            wish.tell(f"generation {generation.number} starts")

    def _judge(self, incoming: Generation, now: float) -> None:
        """Is it ready, or has it failed?"""
        if incoming.failure is not None:
            self._give_up(incoming, incoming.failure, now)
        elif incoming.serves:
            self._promote(incoming, now)
        elif incoming.age >= self.plan.generation.start_timeout:
            seconds = self.plan.generation.start_timeout
            reason = f"it was not ready within {seconds:g} s (start-timeout); this is where it was"
            self._give_up(incoming, Failure(reason, incoming.last_words()), now)

    def _promote(self, incoming: Generation, now: float) -> None:
        """The incoming generation serves; the one before leaves, as far as the new one can take its place."""
        before, self.current, self.incoming = self.current, incoming, None
        incoming.state = State.SERVING
        self._served += 1
        log.info("generation %d serves after %.2f s", incoming.number, incoming.age)
        wish, self._granted = self._granted, None
        if before is not None:
            self.reloads += 1
            before.state = State.DRAINING
            self.outgoing.append(before)
            if self._is_silent(before, now):
                log.error("pool %d is killed; its workers finish what they are doing", before.pid)
                before.kill()
        self.notifier.ready(f"Serving: generation {incoming.number}")
        if wish is not None:
            wish.finish({"done": True, "generation": incoming.number, "seconds": round(incoming.age, 3)})

    def _hand_over(self, current: Generation) -> None:
        """For each worker of the current generation that is ready, one of the generation before may go."""
        for old in self.outgoing:
            if old.let_go < 0:
                continue
            if current.ready >= current.at_first or current.ready >= len(old.workers):
                old.let_go = -1
                old.tell("leave", seconds=self.plan.graceful_timeout)
            elif more := current.ready - old.let_go:
                old.let_go += more
                old.tell("retire", count=more)

    def _give_up(self, incoming: Generation, failure: Failure, now: float) -> None:
        """The incoming generation does not come to serve: it goes, and the reason is told."""
        incoming.failure = failure
        incoming.kill()
        self.incoming = None
        self.outgoing.append(incoming)
        incoming.state, incoming.let_go = State.DRAINING, -1
        wish, self._granted = self._granted, None
        traceback = failure.traceback or incoming.last_words()
        if not self._served and self.current is None:
            self._fail_at_start(failure, traceback)
        told = f"generation {incoming.number}: {failure.reason}"
        if self.current is not None:
            self.failed_reloads += 1
            told = f"reload failed: {told}; generation {self.current.number} serves on"
            self.notifier.ready(f"Reload failed; serving: generation {self.current.number}")
        else:
            told += f"; trying again in {self._budget.lost(now):.1f} s"
        scgi_log.error_with_trace(log, told, traceback)
        if wish is not None:
            wish.finish({"done": False, "reason": failure.reason, "traceback": traceback})

    def _fail_at_start(self, failure: Failure, traceback: str) -> None:
        """Nothing has ever served: there is nothing to go on with."""
        if failure.status == ExitCode.APP_UNLOADABLE:
            raise AppLoadError(failure.reason, traceback=traceback)
        raise StartFailed(failure.reason, traceback, failure.status)

    def _reap(self, now: float) -> None:
        for companion in self.plan.companions:
            companion.reap(now)
        for generation in self._live():
            if generation.child is not None and (status := generation.child.wait_status()) is not None:
                generation.hear()
                self._bury(generation, status, now)
        ours = {generation.pid for generation in self._live()}
        self._orphans.reap(ours | {one.child.pid for one in self._companions() if one.child is not None})

    def _bury(self, generation: Generation, status: int, now: float) -> None:
        """A pool's process has ended: expected or not."""
        ended = f"pool {generation.pid} of generation {generation.number} {describe_end(status)}"
        self._orphans.take(worker.pid for worker in generation.workers)
        if generation is self.incoming and self.phase is not Phase.SERVING:
            self.incoming = None
        elif generation is self.incoming:
            failure = generation.failure or Failure(f"it {describe_end(status)} while it was loading")
            self._give_up(generation, failure, now)
        elif generation is self.current:
            self.current = None
            if self.phase is Phase.SERVING:
                if generation.age >= _SETTLED:
                    self._budget.settled(now)
                rest = self._budget.lost(now, self._budget.BRIEF)
                log.error("%s after %.1f s; its workers finish what they are doing; another starts%s",
                          ended, generation.age, f" in {rest:.1f} s" if rest else "")  # fmt: skip
        if generation in self.outgoing:
            self.outgoing.remove(generation)
            log.info("generation %d has ended", generation.number)
        requests, deaths = generation.board.totals()
        self._past_requests += requests
        self._past_deaths += deaths
        self._poller.unregister(generation.link)
        generation.close()

    # At every tick.

    def _tick(self, now: float) -> None:
        self._next_tick = now + min(_TICK, self.notifier.watchdog_interval or _TICK)
        self.notifier.alive()
        if self.phase is not Phase.SERVING:
            self.notifier.extend(_TICK + 10)
            return
        if self.incoming is not None:
            self.notifier.extend(_TICK + 10)
        for generation in self.outgoing:
            if self._is_silent(generation, now):
                log.error("pool %d of generation %d has shown no sign of life for %g s: killed",
                          generation.pid, generation.number, _WATCH)  # fmt: skip
                generation.kill()
        current = self.current
        if current is not None and self.incoming is None and self._wish is None and self._is_silent(current, now):
            log.error("pool %d of generation %d has shown no sign of life for %g s: another takes its place",
                      current.pid, current.number, _WATCH)  # fmt: skip
            self._wish_for("the pool does not answer")

    def _foreign_to(self, companion: Companion | None) -> tuple[int, ...]:
        """What a child that is no companion, or this one, is not to keep open."""
        fds = [self.bell.out, self.bell.into, self.bell.lifeline_in]
        fds += [fd for generation in self._live() for fd in generation.descriptors()]
        fds += [sock.fileno() for one in self.plan.companions if one is not companion for sock in one.sockets]
        return (*fds, *(self.control.descriptors() if self.control is not None else ()))

    def _is_silent(self, generation: Generation, now: float) -> bool:
        beat = generation.board.last_beat()
        return bool(beat) and now - beat > _WATCH

    # The end.

    def _drain(self, now: float) -> None:
        """TERM: serve what has arrived, then end; at the latest after the graceful timeout."""
        log.info("stopping: what has arrived is served, for at most %g s", self.plan.graceful_timeout)
        self.notifier.stopping("Stopping: what has arrived is served")
        self.phase = Phase.DRAINING
        self._deadline = now + self.plan.graceful_timeout
        for companion in self.plan.companions:
            companion.stop()
        if self._wish is not None:
            self._wish.finish({"done": False, "reason": "the server is stopping", "traceback": ""})
            self._wish = None

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
        if self.incoming is not None:
            self.incoming.kill()
        for generation in self._live():
            generation.tell("stop")

    def _wind_down(self, now: float) -> None:
        """One step further: companions first, then the doors, then the pools; KILL when it is time."""
        if now >= self._deadline + _LATER:
            for generation in self._live():
                generation.kill()
            for companion in self._companions():
                companion.stop(signal.SIGKILL)
            self._orphans.send(signal.SIGKILL)
        elif self.phase is Phase.DRAINING and not self._companions():
            incoming = self.incoming
            if incoming is not None and (self.current is not None or not self.doors.somebody_waits()):
                incoming.kill()
            elif incoming is not None and incoming.failure is None:
                if not incoming.serves:
                    return  # nobody else can answer those who wait
                self.current, self.incoming = incoming, None
            if self.doors.open:
                self._close_doors(now)
            elif self.doors.leave_ajar(now):
                for generation in self._live():
                    generation.tell("leave", seconds=max(0.0, self._deadline - now))

    def _close_doors(self, now: float) -> None:
        """No more connections; those in the queues of our own listeners are still accepted."""
        for generation in self._live():
            generation.board.memory[DRAINING] = 1
            generation.tell("drain", seconds=max(0.0, self._deadline - now))
        self.doors.close(now)


class StartFailed(ScgiError):
    """The application was imported but could not begin to serve."""

    def __init__(self, reason: str, traceback: str, status: ExitCode) -> None:
        super().__init__(reason)
        self.traceback = traceback
        self.status = status
