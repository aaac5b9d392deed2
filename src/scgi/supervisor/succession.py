"""The succession of generations: the one that serves, the one that is loading, those that finish what they have.

The new one serves when its first worker is ready; the old one's workers go one for one as more become ready. If it
fails, it goes, and the old one serves on. A pool that dies or shows no sign of life is replaced the same way. At most
one is loading and one leaving: a further reload waits, and wishes that come meanwhile are one wish.

Imports `net`, `status`, `log` and its neighbours.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from scgi import log as scgi_log
from scgi.errors import AppLoadError, ExitCode, StartFailed
from scgi.net.listen import Listener
from scgi.net.notify import Notifier
from scgi.status.process import is_stopped
from scgi.status.scoreboard import Totals, added
from scgi.supervisor.child import FORK_FAILED, describe_end
from scgi.supervisor.control import Order
from scgi.supervisor.generation import Failure, Generation, GenerationPlan, State
from scgi.supervisor.orphans import Orphans, reap_strangers
from scgi.supervisor.policy import RestartBudget

log = logging.getLogger("scgi.master")

_WATCH: Final = 5.0  # seconds without a sign of life after which a pool is replaced
_PARTING: Final = 2.0  # seconds for a pool to end after its link, or after its time
_CONFIRMED: Final = 5.0  # seconds for the old workers to take no request more, before the new code is said to serve
_CONFIRMING: Final = 0.005  # between looks at them
_SETTLED: Final = 1.0  # a generation that served for less than this died at once


@dataclass(slots=True)
class Wish:
    """Somebody wants new code to serve; wishes that come before a generation starts are one."""

    why: str
    orders: list[Order] = field(default_factory=list)
    waits_for: str = ""

    def tell(self, text: str) -> None:
        for order in self.orders:
            order.say({"progress": text})

    def finish(self, message: dict[str, object]) -> None:
        for order in self.orders:
            order.finish(message)


class Succession:
    """Generations of `plan` on `listeners`; their links are registered with `poller`."""

    def __init__(
        self,
        plan: GenerationPlan,
        graceful_timeout: float,
        listeners: list[Listener],
        poller: select.poll,
        notifier: Notifier,
    ) -> None:
        self.plan = plan
        self.current: Generation | None = None  # serves
        self.incoming: Generation | None = None  # is loading
        self.outgoing: list[Generation] = []  # finish what they have in hand
        self.served = 0  # generations that have come to serve
        self.reloads = self.failed_reloads = 0
        self.bereft: list[Generation] = []  # their process has died, their workers finish what they have in hand
        self._past = Totals()  # of generations that are gone
        self._graceful_timeout = graceful_timeout
        self._listeners = listeners
        self._poller = poller
        self._notifier = notifier
        self._number = 0
        self._wish: Wish | None = None
        self._granted: Wish | None = None  # what the incoming generation was started for
        self._confirm_by = 0.0
        self._broken = RestartBudget()  # for generations that could not serve
        self._deaths = RestartBudget()  # for pools that somebody has ended
        self._forks = RestartBudget()  # when fork fails

    def __bool__(self) -> bool:
        """Whether there are pools, or workers of pools that died."""
        return bool(self.live() or self.bereft)

    def live(self) -> list[Generation]:
        """Those that have a process, the oldest first."""
        found = [*self.outgoing, self.current, self.incoming]
        return sorted((one for one in found if one is not None), key=lambda one: one.number)

    def descriptors(self) -> list[int]:
        """What no child process is to keep open."""
        return [descriptor for one in self.live() for descriptor in one.descriptors()]

    def totals(self) -> Totals:
        """What all generations together have done."""
        total = self._past
        for one in (*self.live(), *self.bereft):
            total = added(total, one.board.totals())
        return total

    def due(self, now: float) -> float:
        """When something is to be done although nobody calls (monotonic seconds)."""
        if self.incoming is not None and self.incoming.child is not None:
            return self.incoming.child.born + self.plan.start_timeout
        if self._granted is not None:
            return now + _CONFIRMING
        wanted = self.current is None or (self._wish is not None and not self.outgoing)
        return now + self._rest(now) if wanted else float("inf")

    def _rest(self, now: float) -> float:
        """Seconds until the next may start; who wishes for one need not wait."""
        return max(self._broken.remaining(now), self._deaths.remaining(now), self._forks.remaining(now))

    # Wishes.

    def wish_for(self, why: str, order: Order | None = None) -> None:
        """New code is to serve."""
        if self._wish is None:
            self._wish = Wish(why)
        if order is not None:
            self._wish.orders.append(order)
            if self._wish.waits_for:
                order.say({"progress": self._wish.waits_for})

    def refuse_wishes(self, reason: str) -> None:
        """There will be no other generation."""
        for wish in (self._wish, self._granted):
            if wish is not None:
                wish.finish({"done": False, "reason": reason, "traceback": ""})
        self._wish = self._granted = None

    def remind_orphans(self, now: float) -> None:
        """Once a second: those who have not heard that they are to end hear it again."""
        for one in self.bereft:
            if one.orphans is not None:
                one.orphans.remind(now, self._graceful_timeout)

    def watch(self, now: float) -> None:
        """Once a second: has somebody fallen silent?"""
        for one in self.live():
            if one.lost_at and now - one.lost_at > _PARTING:
                log.error("%s does not talk to the master any more: killed", one)
                one.kill()
        self._watch_loading(now)
        for one in self.outgoing:
            if _is_silent(one, now):
                log.error("%s has shown no sign of life for %g s: killed", one, _WATCH)
                one.kill()
            elif now > one.leave_by:
                log.error("%s was to leave and has not: killed", one)
                one.kill()
        current = self.current
        if current is not None and self.incoming is None and self._wish is None and _is_silent(current, now):
            log.error("%s has shown no sign of life for %g s: another takes its place", current, _WATCH)
            if self.outgoing:  # which a reload would have to wait for
                current.kill()
            else:
                self.wish_for("the pool does not answer")

    def _watch_loading(self, now: float) -> None:
        """An import may take its time; a process that is stopped takes everybody's."""
        one = self.incoming
        if one is None or not is_stopped(one.pid):
            return
        one.stopped_at = one.stopped_at or now
        if now - one.stopped_at >= _WATCH:
            one.failure = Failure(f"its process was stopped by a signal for {_WATCH:g} s", killed=True)

    # One after another.

    def tend(self, now: float, close: Callable[[], tuple[int, ...]], lifeline: int) -> None:
        """The incoming one's progress, and whether another is wanted.

        `close` says which descriptors only the master may hold. Raises `ScgiError` if nothing has ever served.
        """
        if self.incoming is not None:
            self._judge(self.incoming, now)
        if self.current is not None:
            self._hand_over(self.current, now)
            if self.incoming is None:
                self._confirm(self.current, now)
        if self.incoming is not None or (self._rest(now) and self._wish is None) or self._forks.remaining(now):
            return
        if self.current is None or (self._wish is not None and not self.outgoing):
            wish, self._wish = self._wish or Wish("start"), None
            self._start(wish, now, close, lifeline)
        elif self._wish is not None and not self._wish.waits_for:
            old = self.outgoing[0]
            text = f"generation {old.number} still finishes what {len(old.workers)} workers have in hand"
            log.info("the reload waits: %s (for at most %g s)", text, self._graceful_timeout)
            self._wish.waits_for = f"waiting: {text}"
            self._wish.tell(self._wish.waits_for)

    def _start(self, wish: Wish, now: float, close: Callable[[], tuple[int, ...]], lifeline: int) -> None:
        """Fork a generation beside what there is."""
        at_first = max(1, self.current.serving() if self.current else 0)  # one at least shows that it can start
        try:
            generation = Generation(self._number + 1, self.plan, at_first)
            generation.start(self._listeners, lambda: (*close(), *self.descriptors()), lifeline)
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or "no memory is left"
            log.error("cannot fork a pool: %s; trying again in %g s", why, FORK_FAILED)
            wish.tell(f"cannot fork a pool: {why}; trying again")
            self._forks.rest(FORK_FAILED, now)
            self._wish = wish
            return
        self._number += 1
        self.incoming = generation
        if self._granted is not None:  # that generation died before it could be said to serve
            wish.orders += self._granted.orders
        self._granted = wish
        self._poller.register(generation.link, select.POLLIN)
        log.info("generation %d starts as process %d (%s)", generation.number, generation.pid, wish.why)
        if self.current is not None:
            self._notifier.reloading(f"Reloading: generation {generation.number} starts")
            wish.tell(f"generation {generation.number} starts")

    def _judge(self, incoming: Generation, now: float) -> None:
        """Is it ready, or has it failed?"""
        if incoming.failure is not None:
            self._give_up(incoming, incoming.failure, now)
        elif incoming.serves:
            self._promote(incoming, now)
        elif incoming.age >= self.plan.start_timeout:
            seconds = self.plan.start_timeout
            reason = f"it was not ready within {seconds:g} s (start-timeout); this is where it was"
            self._give_up(incoming, Failure(reason, incoming.last_words()), now)

    def _promote(self, incoming: Generation, now: float) -> None:
        """The incoming generation serves; the one before leaves, as far as the new one can take its place."""
        before, self.current, self.incoming = self.current, incoming, None
        incoming.state = State.SERVING
        self.served += 1
        log.info("generation %d serves after %.2f s", incoming.number, incoming.age)
        self._confirm_by = now + _CONFIRMED
        self._broken.settled(now)
        if before is not None:
            self.reloads += 1
            before.state = State.DRAINING
            self.outgoing.append(before)
            if _is_silent(before, now):
                log.error("%s is killed; its workers finish what they are doing", before)
                before.kill()
        self._confirm(incoming, now)

    def _confirm(self, current: Generation, now: float) -> None:
        """Say that the new code serves, once no worker of the old takes a request any more."""
        if self._granted is not None and (now >= self._confirm_by or not any(one.accepts() for one in self.outgoing)):
            wish, self._granted = self._granted, None
            self._notifier.ready(f"Serving: generation {current.number}")
            wish.finish({"done": True, "generation": current.number, "seconds": round(current.age, 3)})

    def _hand_over(self, current: Generation, now: float) -> None:
        """For each worker of the current generation that is ready, one of the generation before may go."""
        for old in self.outgoing:
            if old.let_go < 0:
                continue
            if current.ready >= current.at_first or current.ready >= len(old.workers):
                old.let_go = -1
                old.leave_by = now + self._graceful_timeout + _PARTING
                old.tell("leave", seconds=self._graceful_timeout)
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
        if not self.served and self.current is None:
            self._fail_at_start(failure, traceback)
        told = f"generation {incoming.number}: {failure.reason}"
        if self.current is not None:
            self.failed_reloads += 1
            told = f"reload failed: {told}; generation {self.current.number} serves on"
            self._notifier.ready(f"Reload failed; serving: generation {self.current.number}")
        else:
            rest = self._deaths.lost(now, self._deaths.BRIEF) if failure.killed else self._broken.lost(now)
            told += f"; trying again in {rest:.1f} s"
        scgi_log.error_with_trace(log, told, traceback)
        if wish is not None:
            wish.finish({"done": False, "reason": failure.reason, "traceback": traceback})

    def _fail_at_start(self, failure: Failure, traceback: str) -> None:
        """Nothing has ever served: there is nothing to go on with."""
        if failure.status == ExitCode.APP_UNLOADABLE:
            raise AppLoadError(failure.reason, traceback=traceback)
        raise StartFailed(failure.reason, traceback=traceback, status=failure.status)

    def hear(self) -> None:
        """What the pools say."""
        for one in self.live():
            if not one.lost_at:
                one.link.flush()
                if not one.hear():
                    self._poller.unregister(one.link)

    def reap(self, now: float, serving: bool, others: set[int]) -> None:
        """Take leave of pools that have ended; `serving`: another is to follow. `others` are the master's other
        children."""
        for one in self.live():
            if one.child is not None and (status := one.child.wait_status()) is not None:
                self.hear()
                self._bury(one, status, now, serving, others | {other.pid for other in self.live()})
        for one in list(self.bereft):
            self._mind_orphans(one, now)
        orphans = {pid for one in self.bereft if one.orphans for pid in one.orphans.children}
        reap_strangers(others | orphans | {one.pid for one in self.live()})

    def _mind_orphans(self, one: Generation, now: float) -> None:
        """Take leave of a dead pool's workers; with the last of them the generation is gone."""
        if one.orphans is not None:
            one.orphans.bury(now)
            one.workers = one.orphans.facts()
        if not one.workers:
            self.bereft.remove(one)
            self._past = added(self._past, one.board.totals())
            one.board.close()

    def _bury(self, generation: Generation, status: int, now: float, serving: bool, ours: set[int]) -> None:
        """A pool's process has ended: expected or not."""
        if generation is self.incoming and not serving:
            self.incoming = None
            self._deaths.lost(now, self._deaths.BRIEF)
        elif generation is self.incoming:
            failure = generation.failure or Failure(
                f"its process ended while it was loading ({describe_end(status)})", killed=os.WIFSIGNALED(status)
            )
            self._give_up(generation, failure, now)
        elif generation is self.current:
            self.current = None
            if serving:
                if generation.age >= _SETTLED:
                    self._deaths.settled(now)
                rest = self._deaths.lost(now, self._deaths.BRIEF)
                log.error(
                    "%s %s after %.1f s; its workers finish what they are doing; another starts%s",
                    generation, describe_end(status), generation.age, f" in {rest:.1f} s" if rest else "",
                )  # fmt: skip
        if generation in self.outgoing:
            self.outgoing.remove(generation)
            log.info("generation %d has ended", generation.number)
        if not generation.lost_at:
            self._poller.unregister(generation.link)
        generation.close()
        generation.state = State.DRAINING
        generation.orphans = Orphans(generation.board, self.plan.threads, generation.workers, ours, now)
        self.bereft.append(generation)
        self._mind_orphans(generation, now)


def _is_silent(generation: Generation, now: float) -> bool:
    beat = generation.board.last_beat()
    return bool(beat) and now - beat > _WATCH
