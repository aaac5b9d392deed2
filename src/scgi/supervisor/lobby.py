"""The lobby as its pool knows it: started when somebody is handed over, started again if it dies, told how to end.

A server whose peers are quick has no such process: it ends when nobody has been in it for a while. Its ways in and
out stay, and may be shared by several generations, so that the next one's lobby takes over who is in this one's.
Imports `workers`, `net`, `status` and its neighbours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from scgi.net.handover import pair
from scgi.net.stream import Patience
from scgi.protocol.request import Limits
from scgi.status.scoreboard import LobbyFigures, Scoreboard
from scgi.supervisor.child import FORK_FAILED, Child, describe_end, fork
from scgi.supervisor.title import set_title
from scgi.workers.waiting_room import DRAIN, LEAVE, ORDER, WaitingRoom, Ways

log = logging.getLogger("scgi.pool")

_REST = 1.0  # seconds at least between two that die


class Passages(NamedTuple):
    """Both ends of the ways into a lobby and out of it."""

    entrance: tuple[socket.socket, socket.socket]  # the taking end, the giving end
    exit: tuple[socket.socket, socket.socket]

    @classmethod
    def make(cls) -> Passages:
        return cls(pair(), pair())

    def descriptors(self) -> list[int]:
        return [end.fileno() for end in (*self.entrance, *self.exit)]

    def close(self) -> None:
        for end in (*self.entrance, *self.exit):
            end.close()


class Lobby:
    """`bell_into` is rung when a request has become whole; `shared` passages are those of all generations."""

    def __init__(
        self,
        board: Scoreboard,
        bell_into: int,
        patience: Patience,
        limits: Limits,
        require_scgi: bool,
        shared: Passages | None = None,
        title: str = "",
    ) -> None:
        self._board = board
        self._bell = bell_into
        self._patience = patience
        self._limits = limits
        self._require_scgi = require_scgi
        self._passages = shared or Passages.make()
        self._shared = shared is not None
        self._title = title
        self._child: Child | None = None
        self._orders = -1  # to the process
        self._not_before = 0.0
        self._drain_by = float("inf")
        self.over = False  # no process more

    @property
    def entrance(self) -> socket.socket:
        """Where connections are handed over."""
        return self._passages.entrance[1]

    @property
    def exit(self) -> socket.socket:
        """Where workers take the requests that have become whole."""
        return self._passages.exit[0]

    @property
    def door(self) -> socket.socket:
        """Readable when somebody has been handed over. To be waited for while there is no process."""
        return self._passages.entrance[0]

    @property
    def alive(self) -> bool:
        return self._child is not None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0

    def descriptors(self) -> list[int]:
        """What workers must not keep: our own ends."""
        ours = [self._passages.entrance[0].fileno(), self._passages.exit[1].fileno()]
        return [*ours, self._orders] if self._orders >= 0 else ours

    def knocked(self) -> bool:
        """Whether somebody waits to be let in."""
        return _readable(self.door)

    def somebody_waits(self) -> bool:
        """Whether a request that is whole waits for a worker."""
        return _readable(self.exit)

    def is_busy(self) -> bool:
        """Whether anybody is anywhere in the lobby."""
        figures = self._board.lobby()
        return (self.alive and figures[:2] != (0, 0)) or self.knocked() or self.somebody_waits()

    def tend(self, now: float, close: Callable[[], Iterable[int]], lifeline: int) -> None:
        """Notice the end of the process; start one if there is none and somebody has knocked.

        `close` says what only the pool may keep open, the listeners too: the lobby must not hold them.
        """
        self._reap(now)
        if self._child is None and not self.over and now >= self._not_before and self.knocked():
            self._start(now, close(), lifeline)

    def _start(self, now: float, close: Iterable[int], lifeline: int) -> None:
        orders, self._orders = os.pipe()
        entrance, back = self._passages.entrance
        ways = Ways(entrance, back, self._passages.exit[1], orders, self._orders, self._bell)

        def wait() -> int:
            if self._title:
                set_title(self._title)
            room = WaitingRoom(ways, self._board, self._patience, self._limits, self._require_scgi, self._drain_by)
            return room.run()

        try:
            self._child = Child(fork(wait, close, lifeline), now)
            log.debug("the lobby started as process %d", self._child.pid)
        except OSError as error:
            log.error("cannot start the lobby: %s; trying again in %g s", error.strerror, FORK_FAILED)
            self._not_before = now + FORK_FAILED
            os.close(self._orders)
            self._orders = -1
        finally:
            os.close(orders)

    def _reap(self, now: float) -> None:
        if self._child is None or (status := self._child.wait_status()) is None:
            return
        pid, self._child = self._child.pid, None
        os.close(self._orders)
        self._orders = -1
        figures = self._board.lobby()
        self._board.note_lobby(LobbyFigures(0, 0, *figures[2:]))
        if status == 0 or (self.over and status == signal.SIGKILL):
            log.debug("the lobby (process %d) ended", pid)
            return
        self._not_before = now + _REST
        log.error(
            "the lobby (process %d) %s: %d requests that were not whole and %d answers that were not taken are lost",
            pid, describe_end(status), figures.reading, figures.answering,
        )  # fmt: skip

    # The end.

    def drain(self, seconds: float) -> None:
        """Finish who is there and who comes; at the end of so many seconds, what is incomplete is answered 503."""
        self._drain_by = min(self._drain_by, time.monotonic() + seconds)
        self._order(DRAIN, self._drain_by)

    def leave(self) -> None:
        """Give everybody back to the entrance, where another generation's lobby takes over; no process more."""
        self.over = True
        self._order(LEAVE, 0.0)

    def stop(self) -> None:
        """At once."""
        self.over = True
        self.send(signal.SIGKILL)

    def send(self, signum: int) -> None:
        if self._child is not None:
            self._child.send(signum)

    def _order(self, what: bytes, until: float) -> None:
        if self._child is not None:
            with contextlib.suppress(OSError):
                os.write(self._orders, ORDER.pack(what, until))

    def close(self) -> None:
        """Let go of what is this pool's alone."""
        if not self._shared:
            self._passages.close()


def _readable(sock: socket.socket) -> bool:
    """A way that the application's code has shut down is readable for ever; nothing will come by it."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
