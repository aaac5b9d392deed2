"""Workers as whoever minds them knows them: watched in the scoreboard, asked to end, reaped, mourned.

What their coming and going means is the minder's business: a pool's, or the master's for those whose pool has died.
Imports `workers`, `status` and its neighbours.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from scgi.status.process import oom_kills
from scgi.status.scoreboard import BUSY, Report, Scoreboard, Stage
from scgi.supervisor.child import Child, describe_end
from scgi.workers.blocking import NUDGE

log = logging.getLogger("scgi.pool")

_RARELY = 1.0  # seconds: who looks no more often may go on nudging
_NUDGES = 3  # more than one: a signal that comes just before the system call is missed
_STALLED = 0.05  # seconds for which nothing comes of a body


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker that has ended: its wait status, how many requests it had answered, and what its threads were doing."""

    child: Child
    status: int
    served: int
    doing: str
    reports: list[Report] = field(default_factory=list)

    def __str__(self) -> str:
        return f"worker {self.child.pid} {describe_end(self.status)} {self.doing}"

    def life(self, age: float) -> str:
        """How old it was, and how big it had grown."""
        memory = f", its memory at most {self.child.peak / (1 << 20):.0f} MB" if self.child.peak else ""
        return f"its age was {age:.1f} s{memory}"


class WantOfMemory:
    """What the cgroup says, no guess: whether processes in it were killed for want of memory."""

    def __init__(self) -> None:
        self._kills = oom_kills()

    def news(self) -> str:
        """For the log: how the count has risen since the last call; "" if it has not."""
        before, self._kills = self._kills, oom_kills()
        if before is None or self._kills is None or self._kills <= before:
            return ""
        return f"; the cgroup's count of processes killed for want of memory rose from {before} to {self._kills}"


class Crew:
    """Workers by process id; each has `threads` slots of the scoreboard."""

    def __init__(self, board: Scoreboard, threads: int) -> None:
        self.board = board
        self.threads = threads
        self.children: dict[int, Child] = {}
        self.want_of_memory = WantOfMemory()

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self.children.values()))

    def __len__(self) -> int:
        return len(self.children)

    def serving(self) -> list[Child]:
        """Those that are not on their way out."""
        return [child for child in self.children.values() if not child.retiring]

    def slots(self, child: Child) -> range:
        return range(child.first_slot, child.first_slot + self.threads)

    def stages(self, child: Child) -> bytes:
        """What its threads are doing."""
        return self.board.stages()[child.first_slot : self.slots(child).stop]

    def is_idle(self, child: Child) -> bool:
        """Whether all its threads wait for a request."""
        return set(self.stages(child)) == {Stage.IDLE}

    def is_busy(self, child: Child) -> bool:
        """Whether one of its threads serves a request, or may be about to."""
        return any(stage in BUSY or stage == Stage.STARTING for stage in self.stages(child))

    def idle_threads(self) -> int:
        """How many threads wait for a request, those on their way out aside."""
        stages, threads = self.board.stages(), self.threads
        return sum(stages.count(Stage.IDLE, child.first_slot, child.first_slot + threads) for child in self.serving())

    def held(self, now: float) -> int:
        """How many are held by peers, all their threads: an application reads a body, and no more of it comes."""
        return sum(
            set(self.stages(child)) == {Stage.RECEIVING}
            and all(now - self.board.sight(slot).since > _STALLED for slot in self.slots(child))
            for child in self.serving()
        )

    def newly_ready(self) -> list[Child]:
        """Those that have come to wait for their first request since the last call."""
        stages = self.board.stages()
        found = []
        for child in self.children.values():
            if not child.ready and all(stages[slot] != Stage.STARTING for slot in self.slots(child)):
                child.ready = True
                found.append(child)
        return found

    def reap(self) -> list[Loss]:
        """Take leave of those that have ended."""
        losses = []
        for child in self:
            if (status := child.wait_status()) is not None:
                del self.children[child.pid]
                reports = [self.board.report(slot) for slot in self.slots(child)]
                numbers = range(1, len(reports) + 1) if len(reports) > 1 else (0,)
                busy = [
                    report.describe(child.pid, number)
                    for number, report in zip(numbers, reports, strict=True)
                    if report.stage in BUSY
                ]
                # It may have begun to serve since somebody looked.
                child.ready = child.ready or all(report.stage != Stage.STARTING for report in reports)
                doing = "; ".join(busy) or ("between requests" if child.ready else "before its first request")
                losses.append(Loss(child, status, self.served(child), doing, reports))
                for slot in self.slots(child):
                    self.board.clear(slot)
        return losses

    def retire(self, child: Child, now: float) -> None:
        """Ask a worker to end after what it is doing."""
        if child.pid in self.children:
            child.retiring = True
            child.asked = now
            child.send(signal.SIGTERM)

    def remind_retiring(self, now: float, patience: float) -> None:
        """Ask again where the first signal came just before `accept` and was missed; KILL where asking is in vain."""
        for child in self:
            if child.retiring and not self.is_busy(child):
                child.send(signal.SIGTERM if now - child.asked < patience else signal.SIGKILL)

    def mourn(self, loss: Loss, by_us: bool, now: float) -> None:
        """Say how a worker ended, and keep what it has done."""
        age = now - loss.child.born
        asked = loss.child.retiring
        self.board.bury(loss.served, died=loss.status != 0 and not asked)
        if loss.status == 0:
            log.info("worker %d ended; its age was %.1f s", loss.child.pid, age)
        else:
            level = logging.INFO if by_us else logging.ERROR
            log.log(level, "%s; %s%s", loss, loss.life(age), "" if by_us else self.want_of_memory.news())

    def finished(self) -> int:
        """How many requests these workers have finished so far."""
        return sum(self.served(child) for child in self.children.values())

    def served(self, child: Child) -> int:
        """How many requests a worker has finished."""
        return sum(map(self.board.finished, self.slots(child)))

    def nudge_waiting(self, now: float, patience: float) -> bool:
        """Whoever has been reading or writing for `patience` seconds waits for its peer: take it to the slow path.
        Whether anybody is reading or writing at all."""
        stages = self.board.stages()
        found = False
        for child in self.children.values():
            for slot in self.slots(child):
                if stages[slot] not in (Stage.READING, Stage.WRITING):
                    child.nudged.pop(slot, None)
                    continue
                found = True
                what = self.board.glance(slot).serial, stages[slot]
                before, since, nudges = child.nudged.get(slot, (None, now, 0))
                if before != what:
                    since, nudges = now, 0
                if now - since >= patience and (nudges < _NUDGES or patience >= _RARELY):
                    nudges += 1
                    child.send(NUDGE)
                child.nudged[slot] = (what, since, nudges)
        return found

    def renew_nudges(self) -> None:
        """A worker has handed somebody over: what it reads now is another's."""
        for child in self.children.values():
            child.nudged = {slot: (what, since, 0) for slot, (what, since, _) in child.nudged.items()}

    def longest_idle_first(self) -> list[Child]:
        """Those that serve and have nothing to do."""
        idle = [child for child in self.serving() if self.is_idle(child)]
        return sorted(idle, key=lambda child: max(self.board.glance(slot).started for slot in self.slots(child)))
