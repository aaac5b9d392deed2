"""One generation of the application: a pool in a process of its own, as the master knows it, and how it begins.

In the child: privileges are dropped, then the application is imported, asked for the probe's path if there is one, and
served by a `Pool`. What goes wrong until the first worker is ready is told over the link; the stack of an import that
hangs or crashes comes over a pipe that `faulthandler` writes to. Imports `apps`, `net`, `status` and its neighbours.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from scgi.apps.leftovers import before_load, left_open
from scgi.errors import AppLoadError, ConfigError, ExitCode, ScgiError
from scgi.net.listen import Listener
from scgi.status.scoreboard import Scoreboard, Stage
from scgi.status.snapshot import WorkerFacts
from scgi.supervisor.bell import Bell
from scgi.supervisor.child import Child, disown, end_with_parent, fork, written
from scgi.supervisor.isolation import Isolation, isolate
from scgi.supervisor.link import Link, LinkLost
from scgi.supervisor.lobby import Passages
from scgi.supervisor.orphans import Orphans
from scgi.supervisor.plan import PoolPlan
from scgi.supervisor.pool import Pool
from scgi.supervisor.probe import ask
from scgi.supervisor.stacks import trimmed
from scgi.supervisor.title import set_title
from scgi.workers import forked

log = logging.getLogger("scgi.pool")

_LAST_WORDS: Final = 65536  # bytes of them
_SOONER: Final = 0.2  # seconds before the master's patience ends, the stack of a hanging import is written


class State(Enum):
    LOADING = "loading"  # until its first worker is ready
    SERVING = "serving"
    DRAINING = "draining"  # another has taken over, or the server stops


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """What every generation begins with. `load` is called in the pool, and imports the application."""

    load: Callable[[], PoolPlan]
    isolation: Isolation
    slots: int  # of the scoreboard
    threads: int = 1  # slots of a worker
    probe: str = ""  # the path to ask for
    passages: Passages = field(default_factory=Passages.make)  # to the lobby, whichever generation has it
    start_timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation could not serve: a sentence, and the application's own traceback or stack if there is one."""

    reason: str
    traceback: str = ""
    status: ExitCode = ExitCode.BOOT_FAILED
    killed: bool = False  # by a signal


class Generation:
    """The master's view. `workers` is what the pool says."""

    def __init__(self, number: int, plan: GenerationPlan, at_first: int) -> None:
        self.number = number
        self.plan = plan
        self.at_first = at_first  # workers to begin with
        self.state = State.LOADING
        self.board = Scoreboard(plan.slots)
        self.workers: list[WorkerFacts] = []
        self.serves = False  # by its own account
        self.guard_off = ""  # why its requests are not guarded
        self.ready = 0  # workers that have become ready so far
        self.let_go = 0  # workers of it that were told to go for the next generation's sake
        self.stacks: list[tuple[int, Any]] = []  # what it has said to inquiries, by their numbers; None: that was all
        self.lost_at = 0.0  # when the link was (monotonic seconds)
        self.leave_by = float("inf")  # when it is killed if it has not left
        self.stopped_at = 0.0  # when it was first seen stopped while it was loading
        self.failure: Failure | None = None
        self.child: Child | None = None
        self._gone: Child | None = None  # what it was, to be shown, and signalled no more
        self.orphans: Orphans | None = None  # when its process has died

    def start(self, listeners: list[Listener], close: Callable[[], Iterable[int]], lifeline: int) -> None:
        """Fork the pool. OSError if that fails; then nothing is left open.

        `close` says, when ours are open and no number changes its meaning any more, what the pool must not keep open.
        """
        with contextlib.ExitStack() as opened:
            opened.callback(self.board.close)
            self.link, theirs = Link.pair()
            opened.callback(self.link.close)
            opened.callback(theirs.close)
            self._words, words = os.pipe()
            opened.callback(os.close, self._words)
            opened.callback(os.close, words)
            os.set_blocking(words, False)
            os.set_blocking(self._words, False)
            ours = (self.link.fileno(), self._words)
            pid = fork(lambda: int(_begin(self, listeners, theirs, words)), (*close(), *ours), lifeline)
            opened.pop_all()
        theirs.close()
        os.close(words)
        self.child = Child(pid, time.monotonic())

    def __str__(self) -> str:
        return f"pool {self.pid} of generation {self.number}"

    @property
    def pid(self) -> int:
        process = self.child or self._gone
        return process.pid if process else 0

    @property
    def age(self) -> float:
        process = self.child or self._gone
        return time.monotonic() - process.born if process else 0.0

    def hear(self) -> bool:
        """Take in what the pool says. Nothing of it is trusted further than to be shown or counted. False: no more."""
        try:
            messages = self.link.hear()
        except LinkLost:
            self.lost_at = time.monotonic()  # its end, if it is that, is seen by its exit
            return False
        for message in messages:
            self._take_in(message)
        return True

    def _take_in(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(TypeError, ValueError, KeyError, OverflowError):
            if "failed" in message:
                status = ExitCode(int(message.get("status", ExitCode.BOOT_FAILED)))
                self.failure = Failure(str(message["failed"]), str(message.get("traceback", "")), status)
            elif "stacks" in message:
                self.stacks.append((int(message["stacks"]), message["row"]))
            elif "workers" in message:
                self.serves = bool(message["serves"])
                self.guard_off = str(message.get("guard_off", ""))[:300]
                self.ready = max(self.ready, int(message["ready"]))
                rows = [
                    WorkerFacts(int(pid), float(born), int(slot), bool(retiring))
                    for pid, born, slot, retiring in message["workers"]
                ]
                last = self.board.slots - self.plan.threads
                self.workers = [row for row in rows if 0 <= row.first_slot <= last and math.isfinite(row.born)]

    def serving(self) -> int:
        """How many workers serve, by its own account."""
        return sum(not worker.retiring for worker in self.workers)

    def accepts(self) -> bool:
        """Whether one of its workers may still take a request."""
        told = all(worker.retiring for worker in self.workers)
        return not told or any(stage in (Stage.IDLE, Stage.STARTING) for stage in self.board.stages())

    def has_begun(self) -> bool:
        """Whether one of its workers may have taken a request, even if the pool has not come to say so yet."""
        return any(stage not in (Stage.FREE, Stage.STARTING) for stage in self.board.stages())

    def last_words(self) -> str:
        """The stack that was written before it was given up, or when it crashed; our own frames are left out."""
        with contextlib.suppress(OSError):
            return trimmed(os.read(self._words, _LAST_WORDS).decode(errors="replace"))
        return ""

    def descriptors(self) -> tuple[int, int]:
        """What no other process is to keep open."""
        return self.link.fileno(), self._words

    def kill(self) -> None:
        """At once; its workers finish what they are doing."""
        self.send(signal.SIGKILL)

    def send(self, signum: int) -> None:
        if self.child is not None:
            self.child.send(signum)

    def tell(self, order: str, **more: Any) -> None:
        """retire (count), leave, drain (seconds), stop, stacks (number)."""
        self.link.say(do=order, **more)

    def close(self) -> None:
        """Its process has ended; the board is kept for as long as it has workers."""
        self.link.close()
        os.close(self._words)
        self._gone, self.child = self.child, None


def _begin(generation: Generation, listeners: list[Listener], link: Link, words: int) -> ExitCode:
    """The pool process, from the fork to its end."""
    plan = generation.plan
    set_title(f"pool, generation {generation.number}, loading")
    master = os.getppid()
    passages = plan.passages.descriptors()
    disown([*(listener.sock.fileno() for listener in listeners), *passages, link.fileno(), words])
    try:
        isolate(plan.isolation)
        end_with_parent(master, signal.SIGKILL)  # an import may ignore whatever else comes
        pool_plan = replace(_load(plan, words), at_first=generation.at_first)
        if plan.probe:
            ask(pool_plan.worker, plan.probe, plan.start_timeout)
    except ScgiError as error:
        status = ExitCode.BOOT_FAILED
        if isinstance(error, AppLoadError | ConfigError):
            status = ExitCode.APP_UNLOADABLE if isinstance(error, AppLoadError) else ExitCode.CONFIG
        link.say(failed=str(error), traceback=getattr(error, "traceback", ""), status=int(status))
        return status
    except BaseException as error:  # the application's own way to end
        status = ExitCode.APP_UNLOADABLE
        trace = written(error).decode(errors="replace")
        link.say(failed=f"the application ended by {type(error).__name__}", traceback=trace, status=int(status))
        return status
    set_title(f"pool, generation {generation.number}")
    with Bell() as bell:
        title = f"generation {generation.number}"
        return Pool(pool_plan, listeners, bell, generation.board, link, words, title, plan.passages).run()


def _load(plan: GenerationPlan, words: int) -> PoolPlan:
    """Import the application; if that hangs or crashes, its stack is in the pipe."""
    faulthandler.enable(words)
    faulthandler.dump_traceback_later(max(0.1, plan.start_timeout - _SOONER), file=words)
    pool, error = os.getpid(), None
    try:
        before = before_load()
        found = plan.load()
    except BaseException as raised:
        error = raised
        raise
    finally:
        if os.getpid() != pool:  # the application has forked, and this is what comes back
            forked.end(error)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.disable()
    for sentence in left_open(before):
        log.warning("the application's import left open what workers cannot share: %s; open it on first use", sentence)
    return found
