"""Processes that stand beside the workers (the HTTP front): started, replaced when they end, stopped first.

Imports its neighbours only; what a companion runs is given to it.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from scgi.supervisor.child import FORK_FAILED, Child, describe_end, fork
from scgi.supervisor.policy import RestartBudget

log = logging.getLogger("scgi.pool")
_SETTLED = 1.0  # seconds after which a companion's end is no failure to start


@dataclass(slots=True)
class Companion:
    """A named process: `run` is called in the child and returns its exit status."""

    name: str
    run: Callable[[], int]
    sockets: tuple[socket.socket, ...] = ()  # its own: workers must not keep them open
    ends_by: int = signal.SIGTERM  # what it has to be sent; KILL where there is nothing to finish
    child: Child | None = None
    wanted: bool = True
    budget: RestartBudget = field(default_factory=RestartBudget)

    def start(self, close: tuple[int, ...], lifeline: int, now: float) -> None:
        """Fork it; if that fails, say so and rest."""
        try:
            self.child = Child(fork(self.run, close, lifeline), now)
        except OSError as error:
            log.error("cannot start %s: %s; trying again in %g s", self.name, error.strerror, FORK_FAILED)
            self.budget.rest(FORK_FAILED, now)
        else:
            log.info("%s started as process %d", self.name, self.child.pid)

    def stop(self, signum: int | None = None) -> None:
        """Ask it to end, for good."""
        self.wanted = False
        self.signal(self.ends_by if signum is None else signum)

    def signal(self, signum: int) -> None:
        if self.child is not None:
            self.child.send(signum)

    def reap(self, now: float) -> None:
        """Notice its end."""
        if self.child is None or (status := self.child.wait_status()) is None:
            return
        age = now - self.child.born
        if self.wanted:
            if age >= _SETTLED:
                self.budget.settled(now)
            rest = self.budget.lost(now)
            log.error(
                "%s (process %d) %s after %.1f s; starting another in %.1f s",
                self.name, self.child.pid, describe_end(status), age, rest,
            )  # fmt: skip
        self.child = None
