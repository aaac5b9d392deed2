"""Workers whose pool has died come to the master: they finish what they are doing, and the master sees to their end.

Linux gives a process that asks for it the children of its dead children (PR_SET_CHILD_SUBREAPER); as PID 1 that is so
by itself. What is no worker, such as a daemon that an application has started, is reaped when it ends and otherwise
left alone. Imports `status` and its neighbours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Container, Sequence

from scgi.status.process import parent
from scgi.status.scoreboard import Scoreboard
from scgi.status.snapshot import WorkerFacts
from scgi.supervisor.child import Child
from scgi.supervisor.crew import Crew
from scgi.supervisor.prctl import PR_SET_CHILD_SUBREAPER, prctl


def adopt_all() -> None:
    """From now on, orphans of this process's children become its own."""
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_strangers(ours: Container[int]) -> None:
    """Take leave of adopted processes that have ended, except of `ours`, whose ends others wait for."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in ours:
                return  # it is first in line until it is reaped
            os.waitpid(ended.si_pid, 0)


class Orphans(Crew):
    """What is left of a pool that has died: by its own account `workers`; those that really came to us are, if they
    were not `ours` all along. They are asked to end, as the system has asked them once."""

    def __init__(
        self, board: Scoreboard, threads: int, workers: Sequence[WorkerFacts], ours: Container[int], now: float
    ) -> None:
        super().__init__(board, threads)
        self._since = now
        for pid, born, first_slot, _ in workers:
            if pid not in ours and parent(pid) == os.getpid():
                self.children[pid] = child = Child(pid, born, first_slot, ready=True)
                self.retire(child, now)

    def facts(self) -> list[WorkerFacts]:
        return [WorkerFacts(child.pid, child.born, child.first_slot, True) for child in self]

    def bury(self, now: float) -> None:
        """Take leave of those that have ended. They were not to be killed: whoever was is a loss."""
        for loss in self.reap():
            loss.child.retiring = loss.status in (0, signal.SIGTERM)
            self.mourn(loss, loss.child.retiring, now)

    def remind(self, now: float, patience: float) -> None:
        """Once a second: ask again; after `patience` seconds they are killed, whatever they are doing."""
        self.remind_retiring(now, patience)
        if now - self._since >= patience:
            self.send(signal.SIGKILL)

    def send(self, signum: int) -> None:
        for child in self:
            child.send(signum)
