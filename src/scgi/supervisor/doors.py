"""The pool's listeners as doors: does somebody wait at one, and how they are closed at the end.

Imports `net` alone.
"""

from __future__ import annotations

import logging
import select
import socket
from typing import Final

from scgi.net.closing import let_few_in, refuse_new
from scgi.net.listen import Listener
from scgi.net.queue import queue_length

log = logging.getLogger("scgi.pool")

_AJAR: Final = 0.5  # seconds after which a door that cannot be shut is left, once who had arrived is served


class Doors:
    """All listeners of a pool. Those that are lent to us are left as they are."""

    def __init__(self, listeners: list[Listener]) -> None:
        self.listeners = listeners
        self.open = True
        self._shut: list[socket.socket] = []
        self._ajar: list[socket.socket] = []
        self._enough = 0  # requests after which all who had arrived are served
        self._leave_at = 0.0
        self._poller = select.poll()
        for listener in listeners:
            self._poller.register(listener.sock, select.POLLIN)

    @property
    def all_lent(self) -> bool:
        """Whether none is ours."""
        return not any(listener.owned for listener in self.listeners)

    @property
    def some_lent(self) -> bool:
        """Whether one at least is not ours."""
        return not all(listener.owned for listener in self.listeners)

    def somebody_waits(self) -> bool:
        """Whether a connection is in a queue; only as long as the doors are open."""
        return bool(self._poller.poll(0))

    def queue(self) -> int | None:
        """How many connections are in the queues; None where the system does not say."""
        lengths = [queue_length(listener.sock) for listener in self.listeners]
        return None if None in lengths else sum(filter(None, lengths))

    def descriptors(self) -> list[int]:
        return [listener.sock.fileno() for listener in self.listeners]

    def left(self) -> int:
        """How many wait at our own doors, as far as the system says."""
        return sum(queue_length(listener.sock) or 0 for listener in self.listeners if listener.owned)

    def queues(self) -> list[tuple[str, int | None]]:
        """Each door's address, and how many wait there."""
        return [(str(listener.address), queue_length(listener.sock)) for listener in self.listeners]

    def close(self, now: float, done: int) -> None:
        """No more connections at our own doors; those in their queues can still be accepted.

        `done`: requests that have been finished so far.
        """
        self.open = False
        self._leave_at = now + _AJAR
        for listener in self.listeners:
            if not listener.owned:
                log.info("%s stays open for the next server", listener.address)
                continue
            listener.unlink()
            (self._shut if refuse_new(listener.sock) else self._ajar).append(listener.sock)
        let_few_in(self._ajar)
        self._enough = done + sum(queue_length(sock) or 0 for sock in self._ajar)

    def abandon(self) -> None:
        """This process has no part in them any more."""
        for listener in self.listeners:
            listener.sock.close()

    def leave_ajar(self, now: float, done: int, at_work: int) -> bool:
        """Whether it is time to go because a door could not be shut: whoever was there when it was closed is served.

        Queues are first in, first out. `done` as in `close`; `at_work` is how many may be in hand at once.
        """
        if not self._ajar or now < self._leave_at or any(queue_length(sock) for sock in self._shut):
            return False
        return not any(queue_length(sock) for sock in self._ajar) or done >= self._enough + at_work
