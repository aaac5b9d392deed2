"""The workers that a pool has forked, each into its slots of the scoreboard.

Imports `workers`, `net`, `status` and its neighbours.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from scgi.net.listen import Listener
from scgi.status.scoreboard import Scoreboard, Stage
from scgi.supervisor.child import Child, fork, written
from scgi.supervisor.crew import Crew, Loss
from scgi.supervisor.recycle import Ration
from scgi.supervisor.title import set_title
from scgi.workers.blocking import Surroundings, Worker, WorkerPlan


@dataclass(frozen=True, slots=True)
class Wiring:
    """The descriptors that tie workers and pool together, and those that workers must not keep."""

    bell: int  # to write to: somebody is wanted
    lifeline: int  # reads end of file when the pool is gone
    foreign: Callable[[], tuple[int, ...]] = tuple  # what no child is to keep open, now
    last_words: int = -1  # where a worker that cannot start writes why
    title: str = ""  # what `ps` shows of workers
    ration: Ration = field(default_factory=Ration)  # of a worker's life
    entrance: socket.socket | None = None  # of the lobby
    exit: socket.socket | None = None
    stacks: int = -1  # where a worker's stacks are written


class Roster(Crew):
    """All workers of a pool."""

    def __init__(self, plan: WorkerPlan, listeners: list[Listener], board: Scoreboard) -> None:
        super().__init__(board, plan.threads)
        self.plan = plan
        self.listeners = listeners

    def mourn(self, loss: Loss, by_us: bool, now: float) -> None:
        super().mourn(loss, by_us, now)
        if loss.status and self.plan.bury is not None:
            self.plan.bury(loss.child.pid)

    def spawn(self, wiring: Wiring, now: float, replaces: Child | None = None) -> Child | None:
        """Fork a worker; None if every slot is taken. OSError if fork fails."""
        threads = self.plan.threads
        taken = {child.first_slot for child in self.children.values()}
        first = next((slot for slot in range(0, self.board.slots, threads) if slot not in taken), None)
        if first is None:
            return None
        child = Child(0, now, first, replaces=replaces)
        for slot in self.slots(child):
            self.board.clear(slot)
            self.board.mark(slot, Stage.STARTING)

        def work() -> int:
            around = Surroundings(
                [listener.sock for listener in self.listeners],
                [listener.owned for listener in self.listeners],
                self.board,
                first,
                wiring.bell,
                wiring.lifeline,
                wiring.entrance,
                wiring.exit,
                wiring.stacks,
            )
            if wiring.title:
                set_title(wiring.title)
            try:
                enough = wiring.ration.share(child.chance).max_requests
                return Worker(self.plan, around, enough).run()
            except Exception as error:
                if wiring.last_words >= 0:
                    with contextlib.suppress(OSError):
                        os.write(wiring.last_words, written(error)[-select.PIPE_BUF :])
                raise

        child.pid = fork(work, wiring.foreign(), wiring.lifeline)
        self.children[child.pid] = child
        return child
