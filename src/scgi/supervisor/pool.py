"""One generation of workers: forked on demand, healed, shrunk, replaced, watched, drained.

Workers accept for themselves. One that turns busy and sees nobody idle rings the *bell* (a byte in a pipe, the same
that signals are written to); the pool looks a moment later, and if a connection still waits and nobody is idle it
forks. Everything else happens at a tick, once a second: shrinking, recycling, nudging workers that wait for a peer.
Beside the workers there is the lobby, for slow peers (see `lobby`), and somebody has an eye on requests that run for
long (see `oversight`).

A pool runs alone (`SCGIServer`), told by signals; or it is a generation of a master's, told over a link: then the
doors are the master's, and the pool serves, lets its workers go as the next generation's become ready, and ends.

One loop, one wait; signal handlers do nothing but write to the bell. Imports `workers`, `net`, `status`, `log`.
"""

from __future__ import annotations

import gc
import logging
import select
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Final

from scgi import log as scgi_log
from scgi.errors import ExitCode
from scgi.net.listen import Listener
from scgi.status.scoreboard import DRAINING, Scoreboard
from scgi.supervisor.bell import Bell
from scgi.supervisor.child import FORK_FAILED, Child
from scgi.supervisor.crew import Loss
from scgi.supervisor.doors import Doors
from scgi.supervisor.growth import Growth
from scgi.supervisor.guard import Guard
from scgi.supervisor.link import Link, LinkLost
from scgi.supervisor.lobby import Lobby, Passages
from scgi.supervisor.oversight import Oversight
from scgi.supervisor.plan import Phase, PoolPlan, slots_for
from scgi.supervisor.policy import RestartBudget
from scgi.supervisor.reception import Reception
from scgi.supervisor.roster import Roster, Wiring
from scgi.supervisor.turnover import Turnover
from scgi.workers.blocking import ENOUGH, HANDED_OVER, NOBODY_IDLE, NUDGE
from scgi.workers.waiting_room import DELIVERED

log = logging.getLogger("scgi.pool")

_TICK: Final = 1.0
_SETTLED: Final = 1.0  # a worker that dies younger than this died at once
_HURRY: Final = 0.3  # at a stop "at once": between TERM and KILL
_KILLED: Final = 2.0  # after KILL nothing is waited for longer than this
_LAST_WORDS: Final = 1.5  # seconds before the end in which the lobby says that it has come
_WINDING: Final = 0.02  # between looks while the pool ends


class Pool:
    """Runs workers on `listeners` in this process until it is told to stop. The application is loaded already.

    Alone, it makes its own `board` and is told by signals, which ring `bell`. With a `link` it is told by the master;
    workers that cannot start write why to `last_words`; `title` is what `ps` shows of its processes; `passages` lead
    to the lobby, whichever generation has it.
    """

    def __init__(
        self,
        plan: PoolPlan,
        listeners: list[Listener],
        bell: Bell,
        board: Scoreboard | None = None,
        link: Link | None = None,
        last_words: int = -1,
        title: str = "",
        passages: Passages | None = None,
    ) -> None:
        self.plan = plan
        self.bell = bell
        self.link = link
        self._alone = link is None
        board = board or Scoreboard(slots_for(plan.policy.maximum, plan.worker.threads))
        worker = plan.worker
        self.lobby = Lobby(
            board, bell.into, worker.patience, worker.limits, worker.require_scgi, passages, title and f"lobby, {title}"
        )
        self.doors = Doors(listeners)
        self.roster = Roster(worker, listeners, board)
        self.reception = Reception(self.lobby, self.roster)
        self.guard = Guard(board, worker.threads, self.lobby.entrance)
        self.oversight = Oversight(self.roster, self.guard, plan.timeout, plan.slow_log)
        self.phase = Phase.SERVING
        self.exit_code = ExitCode.OK
        self._budget = RestartBudget()
        self._poller = select.poll()
        first = min(max(plan.policy.minimum, plan.at_first), plan.policy.maximum)
        self._growth = Growth(replace(plan.policy, minimum=first), self.roster, self.doors, self._poller)
        self._next_tick = 0.0
        self._turnover = Turnover(self.roster, plan.ration)
        self._ready = 0  # workers that have become ready, ever
        self._changed = True  # there is something to tell the master
        self._guard_off = ""  # as it was told
        self._deadline = inf
        self._drains = False  # what is in the lobby is ours to finish
        self._leaves = False  # what is in the queues is not ours any more
        self._wiring = Wiring(
            bell.into, bell.lifeline_out, self._not_for_workers, last_words, title and f"worker, {title}",
            plan.ration, self.lobby.entrance, self.lobby.exit, self.oversight.stacks_fd,
        )  # fmt: skip

    def run(self) -> ExitCode:
        """Serve until told to stop, or a failure at the start; returns the exit status for the process."""
        self.bell.wire()
        self._poller.register(self.bell.out, select.POLLIN)
        if self.link is not None:
            self._poller.register(self.link, select.POLLIN)
        gc.collect()
        gc.freeze()
        try:
            while (
                self.phase is Phase.SERVING
                or len(self.roster)
                or self.lobby.alive
                or (self._drains and self.lobby.knocked())
            ):
                self._turn()
                if self.phase is Phase.STOPPING and time.monotonic() > self._deadline + _KILLED:
                    log.error("processes that do not end are left behind: %s", sorted(self.roster.children))
                    break
        finally:
            gc.unfreeze()
            for child in self.roster:
                child.send(signal.SIGKILL)
            self.lobby.close()
            self.oversight.close()
            self.guard.close()
            self.roster.board.close()
        return self.exit_code

    def _private(self) -> tuple[int, ...]:
        """What no child is to keep open."""
        bell, link = self.bell, (self.link.fileno(),) if self.link else ()
        return (bell.out, bell.lifeline_in, *link, *self.guard.descriptors(), *self.oversight.descriptors())

    def _not_for_workers(self) -> tuple[int, ...]:
        return (*self._private(), *self.lobby.descriptors())

    def _turn(self) -> None:
        """Once round: wait, hear, reap, decide."""
        ready = {fd for fd, _ in self._poller.poll(self._patience())}
        now = time.monotonic()
        if self.bell.out in ready:
            self._hear(now)
        if self.link is not None and self.link.fileno() in ready:
            ready.remove(self.link.fileno())
            self._obey(self.link, now)
        if ready - {self.bell.out}:
            self._growth.someone_came(now)
        for loss in self.roster.reap():
            self._mourn(loss, now)
        for child in self.roster.newly_ready():
            self._welcome(child, now)
        if self.phase is Phase.SERVING:
            self._replace(now)
        else:
            self._wind_down(now)
        if now >= self._next_tick:
            self._tick(now)
        self.oversight.look(now)
        if self.phase is not Phase.STOPPING or self.lobby.alive:
            self.lobby.tend(now, lambda: (*self._private(), *self.doors.descriptors()), self.bell.lifeline_out)
        if self.reception.somebody_waits():
            self._deliver(now)
        if self._growth.look_at is not None and now >= self._growth.look_at and not self._budget.remaining(now):
            for _ in range(self._growth.look(now)):
                if not self._spawn(now):
                    break
        if self.link is not None:
            self._report(self.link)

    def _patience(self) -> float | None:
        """Milliseconds until something is due; None for ever."""
        now = time.monotonic()
        due_at = [self._next_tick] if len(self.roster) or self.link or self.lobby.alive else []
        if len(self.roster):
            due_at.append(self.oversight.due(now))
        due_at.append(self.reception.due(now))
        if self.phase is not Phase.SERVING:
            due_at.append(now + _WINDING)
        elif rest := self._budget.remaining(now):
            due_at.append(now + rest)
        elif self._growth.look_at is not None:
            due_at.append(self._growth.look_at)
        earliest = min(due_at)
        return None if earliest == inf else max(0.0, (earliest - now) * 1000 + 0.1)

    # Being told.

    def _hear(self, now: float) -> None:
        """Read the bell: signals by their numbers, 0 from workers."""
        for byte in self.bell.hear():
            if byte == NOBODY_IDLE:
                self._growth.nobody_is_idle(now)
            elif byte == ENOUGH and self._growth.on:
                self._turnover.recycle(now)
            elif byte == HANDED_OVER:
                self.roster.renew_nudges()
            elif byte == DELIVERED:
                self._deliver(now)
            elif byte == signal.SIGUSR1:
                scgi_log.reopen()
                self.lobby.send(signal.SIGUSR1)
                for child in self.roster:
                    child.send(signal.SIGUSR1)
            elif byte == signal.SIGUSR2:
                self.oversight.stacks(now)
            elif not self._alone:
                pass  # service managers signal everybody: the master knows what it means for us
            elif byte == signal.SIGTERM and self.phase is Phase.SERVING:
                self._end(now, self.plan.graceful_timeout, drain=True)
            elif byte in (signal.SIGTERM, signal.SIGINT):
                self._stop_at_once(now)
            elif byte == signal.SIGHUP and self.phase is Phase.SERVING:
                self._turnover.everybody()

    def _obey(self, link: Link, now: float) -> None:
        """What the master says; if it is gone, so are we as soon as nobody is served any more."""
        try:
            orders = link.hear()
        except LinkLost:
            self._poller.unregister(link)
            self.link = None
            log.warning("the master is gone: the workers finish what they are doing, and end")
            self._end(now, self.plan.graceful_timeout, drain=False)
            self.doors.abandon()  # workers do the same: the next server can have the address
            return
        for order in orders:
            seconds = order.get("seconds", self.plan.graceful_timeout)
            match order.get("do"):
                case "retire":
                    self._let_go(order["count"], now)
                case "leave" | "drain" as what:
                    self._end(now, seconds, drain=what == "drain")
                case "stop":
                    self._stop_at_once(now)
                case "stacks":
                    self.oversight.stacks(now, _by_link(link, order["number"]))

    def _report(self, link: Link) -> None:
        """Tell the master who there is, when that has changed."""
        if (self._changed or self._guard_off != self.guard.off) and link.flush():
            self._changed, self._guard_off = False, self.guard.off
            workers = [[child.pid, child.born, child.first_slot, child.retiring] for child in self.roster]
            serves = self._ready > 0 or not self._growth.policy.minimum
            link.say(serves=serves, ready=self._ready, workers=workers, guard_off=self.guard.off)

    def _tick(self, now: float) -> None:
        """Who waits for a peer, who was asked to end, who is not needed, who has done enough."""
        self._next_tick = now + _TICK
        self.roster.board.beat(now)
        self.roster.nudge_waiting(now, _TICK)
        self._deliver(now)
        self.roster.remind_retiring(now, self.plan.graceful_timeout)
        if not self._growth.on:
            return
        for child in self._growth.surplus(now):
            log.info("worker %d was not needed for %g s and ends", child.pid, self.plan.policy.idle_timeout)
            self._retire(child, now)
        for child in self.roster.serving():
            if child.ready and now - child.born >= _SETTLED:
                self._budget.settled(child.born)
        self._turnover.recycle(now)
        self._growth.look_again(now)

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
        self._changed = True
        if replaces is None:
            count, most = len(self.roster.serving()), self.plan.policy.maximum
            log.info("worker %d started (%d of at most %d)", child.pid, count, most)
        else:
            log.info("worker %d started in place of %d", child.pid, replaces.pid)
        return True

    def _welcome(self, child: Child, now: float) -> None:
        """A worker is ready: whoever it replaces may go."""
        self._changed = True
        self._ready += 1
        if self._ready >= self.plan.at_first:
            self._growth.policy = self.plan.policy
        if child.replaces is not None:
            self._retire(child.replaces, now)
            child.replaces = None

    def _deliver(self, now: float) -> None:
        """Something may have become whole in the lobby: a worker is to take it."""
        ours = self._growth.on or self._drains
        if self.reception.deliver() and ours and not len(self.roster) and not self._budget.remaining(now):
            self._spawn(now)

    def _retire(self, child: Child, now: float) -> None:
        self._changed = True
        self.roster.retire(child, now)

    def _replace(self, now: float) -> None:
        """A fresh worker for each that is to be replaced; the old ones go one for one as the fresh ones are ready."""
        while (child := self._turnover.next()) is not None:
            if self._budget.remaining(now) or not self._spawn(now, replaces=child):
                return
            self._turnover.has_heir(child)

    def _mourn(self, loss: Loss, now: float) -> None:
        """Say how a worker ended, and judge what that means for the next."""
        child = loss.child
        age = now - child.born
        failed, killed = loss.status != 0, loss.status == signal.SIGKILL  # somebody has: it is not the code
        asked = child.retiring or self.phase is Phase.STOPPING
        self._changed = True
        self.oversight.mourned(loss, now)
        self.roster.mourn(loss, asked and loss.status in (signal.SIGTERM, signal.SIGKILL), now)
        self._growth.soon(now)
        draining = self.phase is Phase.DRAINING and self.roster.board.memory[DRAINING]
        if draining and not asked and not self.roster.serving() and self.doors.left():
            self._spawn(now)  # for those that are still in the queue
        if asked and self._growth.on:
            self._turnover.recycle(now)
        if asked or not (failed or self._growth.on):
            return
        if child.replaces is not None:
            self._turnover.again(child.replaces)
        if (child.ready and age >= _SETTLED) or (loss.served and not failed):
            self._budget.settled(child.born)
        elif self._growth.policy.minimum and not (self._ready or child.ready):
            self._give_up(loss, now)
        else:
            self._growth.start_over()
            if rest := self._budget.lost(now, self._budget.BRIEF if child.ready or killed else self._budget.LONGEST):
                log.warning("workers die at once: the next one starts in %.1f s", rest)

    def _give_up(self, loss: Loss, now: float) -> None:
        """Not one worker could start: it would be the same with the next."""
        log.error("the first worker could not start; see above")
        self.exit_code = ExitCode.BOOT_FAILED
        if self.link is not None:
            self.link.say(failed=f"the first worker could not start: {loss}")
        self._stop_at_once(now)

    # The end.

    def _let_go(self, count: int, now: float) -> None:
        """The next generation has `count` workers more: as many of ours are not needed, the idle ones first."""
        self._growth.end()
        for child in sorted(self.roster.serving(), key=self.roster.is_busy)[:count]:
            self._retire(child, now)

    def _end(self, now: float, seconds: float, *, drain: bool) -> None:
        """Serve what workers have in hand and, to `drain`, what has arrived; then end, after `seconds` at the latest.

        At doors that are not ours to drain nobody waits for us: workers leave singly.
        """
        if self.phase is Phase.STOPPING:
            return
        if drain or self._alone:
            self._drains = True
            self.lobby.drain(max(0.0, seconds - _LAST_WORDS))
        elif not self._drains:
            self.lobby.leave()  # to the next generation's, if there is one
        if self.phase is Phase.SERVING:
            log.info("stopping: what has arrived is served, for at most %g s", seconds)
        self.phase = Phase.DRAINING
        self._deadline = min(self._deadline, now + seconds)
        if drain and not self._leaves and not self.roster.serving() and self.doors.somebody_waits():
            self._spawn(now)  # unless another generation has taken over: they are its
        self._growth.end()
        if not drain or self.doors.all_lent:
            self._leaves = True
            self._retire_all(now)
            return
        self.roster.board.memory[DRAINING] = 1
        if self._alone:
            self.doors.close(now, self._done())
        if self.doors.some_lent:
            for child in self.roster:  # the busy ones too: what is lent is no more to be listened to
                child.send(NUDGE)

    def _stop_at_once(self, now: float) -> None:
        if self.phase is Phase.STOPPING:
            return
        log.info("stopping at once")
        self.phase = Phase.STOPPING
        self._deadline = min(self._deadline, now + _HURRY)
        self.lobby.stop()
        self._growth.end()
        self._retire_all(now)

    def _wind_down(self, now: float) -> None:
        """One step further; KILL when it is time."""
        if now >= self._deadline:
            if self.phase is Phase.DRAINING:
                log.warning("%d workers are still busy after the graceful timeout: killed", len(self.roster))
                self._stop_at_once(now)
            self.lobby.send(signal.SIGKILL)
            for child in self.roster:
                child.send(signal.SIGKILL)
        elif self.phase is Phase.DRAINING:
            self._deliver(now)
            ajar = self.doors.leave_ajar(now, self._done(), len(self.roster) * self.plan.worker.threads)
            if ajar or (self._leaves and not self.reception.somebody_waits()):
                for child in list(self.roster.serving()):  # one that was forked for the lobby's sake too
                    self._retire(child, now)
            for child in self.roster:
                if not self.roster.is_busy(child):  # again: a signal that comes just before `accept` is missed
                    child.send(signal.SIGTERM if child.retiring else NUDGE)

    def _done(self) -> int:
        return self.roster.board.totals().requests

    def _retire_all(self, now: float) -> None:
        for child in self.roster:
            self._retire(child, now)


def _by_link(link: Link, number: int) -> Callable[[dict[str, Any] | None], None]:
    """Answers inquiry `number` with a row for each worker."""
    return lambda row: link.say(stacks=number, row=row)
