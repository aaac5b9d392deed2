"""A worker that is given whole requests over a socket pair, one at a time, instead of accepting connections.

Before each it says one byte: it is free. Imports its neighbours, `net` and `status`.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from scgi.status.scoreboard import Scoreboard
from scgi.workers.blocking import Surroundings, Worker, WorkerPlan
from scgi.workers.slow import Accept, SlowPeers


class _Deliveries(SlowPeers):
    ways: socket.socket
    ended = False

    def take(self) -> tuple[int, Any]:
        """As `accept`; OSError at the end."""
        poller = select.poll()
        poller.register(self.ways, select.POLLIN)
        while True:
            self.ways.send(b"1", getattr(socket, "MSG_NOSIGNAL", 0))
            events = poller.poll()
            try:
                return super().take()
            except BlockingIOError:  # the client has left; or there is nobody who gives
                if any(event & (select.POLLHUP | select.POLLERR) for _, event in events):
                    self.ended = True
                    raise


class DeliveredWorker(Worker):
    """One thread, fed through `ways`."""

    def __init__(self, plan: WorkerPlan, board: Scoreboard, slot: int, bell: int, lifeline: int, ways: socket.socket):
        super().__init__(plan, Surroundings([ways], [False], board, slot, bell, lifeline))
        self.slow = _Deliveries(plan.limits, plan.require_scgi, plan.patience, None, ways, lambda: None)
        self.slow.ways = ways
        self.intake.accept = _nothing

    def _other_accept(self, accept: Accept, error: OSError) -> Accept | None:
        ended = self.leaving or self.slow.ended or isinstance(error, ConnectionError)  # type: ignore[attr-defined]
        return None if ended else self.slow.take


def _nothing() -> tuple[int, Any]:
    raise BlockingIOError
