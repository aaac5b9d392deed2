"""The lobby's process: slow peers wait here, so that no worker waits for them.

One loop over all connections; it never runs application code. Requests are read on until they are whole and go to the
workers by the exit; answers are sent on until they are out. Deadlines are in a heap, and none is looked at before it
may be over: a thousand that say nothing cost nothing. What the pool orders comes over a pipe. At the end of a
generation everything goes back through the entrance, for the next generation's lobby.

Imports `net`, `status`, `protocol`, `errors` and its neighbour `guests`.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import logging
import os
import resource
import select
import selectors
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scgi.errors import LimitExceeded, ProtocolError, TruncatedRequest
from scgi.net.handover import Errand, Parcel, hand_over, take
from scgi.net.stream import Patience, PeerGone, reset
from scgi.protocol.request import Limits
from scgi.protocol.response import error_page
from scgi.status.scoreboard import LobbyFigures, Scoreboard
from scgi.workers.guests import Reading, Sending

log = logging.getLogger("scgi.lobby")

DELIVERED: Final = 254  # what is written to the bell when a request is whole
ORDER: Final = struct.Struct("=cd")  # what the pool wants, and by when (monotonic seconds)
LEAVE: Final = b"l"
DRAIN: Final = b"d"
_EMPTY_FOR: Final = 10.0  # seconds without a guest, after which the process ends
_EMPTY_AT_THE_END: Final = 0.2
_AGAIN: Final = 0.02  # between attempts to give guests back
_LAST: Final = 1.0  # seconds after the deadline of draining in which the last words may be heard
_ORPHANED: Final = 30.0  # seconds to finish answers when nobody takes over
_DESCRIPTORS: Final = 65536
_OWN_DESCRIPTORS: Final = 96  # that are no guests'

Guest = Reading | Sending


@dataclass(frozen=True, slots=True)
class Ways:
    """The descriptors that lead in and out. `back` is the giving end of the entrance."""

    entrance: socket.socket
    back: socket.socket
    exit: socket.socket
    orders: int
    orders_into: int
    bell: int


class WaitingRoom:
    """All guests, and the loop."""

    def __init__(
        self, ways: Ways, board: Scoreboard, patience: Patience, limits: Limits, require_scgi: bool, drain_by: float
    ) -> None:
        """`drain_by`: if it is not infinite, this lobby finishes what comes, until then."""
        self._ways = ways
        self._board = board
        self._patience = patience
        self._limits = limits
        self._require_scgi = require_scgi
        self._selector = selectors.DefaultSelector()
        self._reading: dict[Reading, None] = {}  # in the order of their coming
        self._ready: deque[Reading] = deque()  # whole, and the exit is full
        self._sending: dict[Sending, None] = {}
        self._agenda: list[tuple[float, int, Guest]] = []
        self._due: dict[Guest, float] = {}  # each guest's one entry in the agenda that counts
        self._number = itertools.count()
        self._held = 0  # descriptors of guests
        self._most = 0
        self._too_late, self._gone = board.lobby()[2:]
        self._noted: LobbyFigures | None = None
        self._complained = 0.0  # of being full
        self._shut = False
        self._leaving = False
        self._drain_by = drain_by
        self._end = drain_by + _LAST
        self._empty_since = time.monotonic()

    def run(self) -> int:
        """Serve until nobody has been here for a while, or the pool says so."""
        os.set_blocking(self._ways.orders, False)
        signal.signal(signal.SIGTERM, self._on_term)
        self._most = _raise_limit() - _OWN_DESCRIPTORS
        self._selector.register(self._ways.entrance, selectors.EVENT_READ, self._let_in)
        self._selector.register(self._ways.orders, selectors.EVENT_READ, self._obey)
        while not self._over():
            for key, _ in self._selector.select(self._wait()):
                if not isinstance(key.data, Reading | Sending):
                    key.data()
                elif key.data.held:  # it may have had to go for another's sake
                    self._turn(key.data)
            if self._leaving:
                self._give_back()
            self._look_at_the_clock()
            self._note()
        for guest in self._everybody():
            self._forget(guest)
            guest.close(reset)
        self._note()
        return 0

    def _everybody(self) -> list[Guest]:
        return [*self._reading, *self._ready, *self._sending]

    def _over(self) -> bool:
        now = time.monotonic()
        if self._held:
            self._empty_since = now
            return now >= self._end
        return self._leaving or now >= self._empty_since + self._patience_for_guests()

    def _patience_for_guests(self) -> float:
        return _EMPTY_AT_THE_END if self._drain_by < float("inf") else _EMPTY_FOR

    def _wait(self) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        until = [self._drain_by if now < self._drain_by else self._end]
        if self._agenda:
            until.append(self._agenda[0][0])
        if not self._held:
            until.append(self._empty_since + self._patience_for_guests())
        if self._leaving:
            until.append(now + _AGAIN)
        return max(0.0, min(*until, now + 60.0) - now)

    # The pool's wishes.

    def _on_term(self, signum: int, frame: object) -> None:
        os.write(self._ways.orders_into, ORDER.pack(LEAVE, 0.0))

    def _obey(self) -> None:
        what, until = ORDER.unpack(os.read(self._ways.orders, ORDER.size))
        if what == DRAIN:
            self._drain(until, until + _LAST)
        elif not self._leaving:
            self._leaving = True
            self._stay_shut()
            self._ways.entrance.close()

    def _drain(self, until: float, end: float) -> None:
        self._drain_by, self._end = until, end

    def _give_back(self) -> None:
        """Everybody goes to whoever has the entrance now; if nobody has, this is the end for them."""
        for guest in self._everybody():
            if hand_over(self._ways.back, guest.unfinished(), wait=0):
                self._forget(guest)
                guest.close()
            elif _has_hung_up(self._ways.back):
                self._leaving = False
                self._drain(time.monotonic(), time.monotonic() + _ORPHANED)
                return
            else:
                return

    # Coming.

    def _let_in(self) -> None:
        """Take what is at the entrance, as long as there is room; none comes after the order to leave."""
        while self._ways.entrance.fileno() >= 0 and self._make_room():
            try:
                parcel = take(self._ways.entrance)
            except OSError as error:
                log.error("the lobby cannot take a connection: %s", error.strerror)
                self._stay_shut()
                return
            if parcel is None:
                if _has_hung_up(self._ways.entrance):  # an application can do that
                    self._stay_shut()
                    self._ways.entrance.close()
                return
            os.set_blocking(parcel.fd, False)
            if parcel.errand is Errand.ANSWER:
                self._welcome(Sending(parcel, time.monotonic()))
            else:
                self._welcome(Reading(parcel, self._limits, self._require_scgi))

    def _make_room(self) -> bool:
        """Whether there are descriptors for one more; the request that has waited longest goes for its sake."""
        if self._held + 2 <= self._most:
            return True
        oldest = next(iter(self._reading), None)
        if oldest is None:
            self._stay_shut()
            return False
        self._too_late += 1
        if (now := time.monotonic()) - self._complained >= 1.0:
            self._complained = now
            log.warning("the lobby is full: those who have waited longest are answered 408")
        with contextlib.suppress(OSError):
            os.write(oldest.fd, error_page(408, "Too many wait."))
            os.read(oldest.fd, 1 << 18)  # what is unread would make the close a reset
        self._forget(oldest)
        oldest.close()
        return True

    def _stay_shut(self) -> None:
        """Nobody more, until somebody goes."""
        self._shut = True
        self._stop_waiting_for(self._ways.entrance)

    def _stop_waiting_for(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def _welcome(self, guest: Guest) -> None:
        self._count(guest)
        if isinstance(guest, Sending):
            self._sending[guest] = None
            self._selector.register(guest.fd, selectors.EVENT_WRITE, guest)
            self._turn(guest)
        else:
            self._reading[guest] = None
            self._selector.register(guest.fd, selectors.EVENT_READ, guest)
            self._try(guest, guest.look)

    def _count(self, guest: Guest) -> None:
        """How many descriptors it has now."""
        self._held += guest.descriptors - guest.held
        guest.held = guest.descriptors

    # Being here.

    def _turn(self, guest: Guest) -> None:
        now = time.monotonic()
        if isinstance(guest, Reading):
            self._try(guest, lambda: guest.turn(now))
            return
        try:
            over = guest.turn(now)
        except PeerGone as error:
            log.info("an answer was not taken: %s", error)
            self._forget(guest)
            guest.close(reset)
            return
        if over:
            self._forget(guest)
            guest.close(reset if guest.reset else os.close)
            return
        if guest.leaving:
            self._selector.modify(guest.fd, selectors.EVENT_READ, guest)
        self._plan(guest)

    def _try(self, guest: Reading, step: Callable[[], bool]) -> None:
        """Take a request one step further, whatever comes of it."""
        try:
            whole = step()
        except ProtocolError as refusal:
            self._gone += isinstance(refusal, TruncatedRequest)
            self._refuse(guest, refusal)
        except PeerGone as error:
            self._gone += guest.spool.size > 0  # an empty connection is normal: Apache makes one before a 411
            log.debug("a peer left the lobby: %s", error)
            self._forget(guest)
            guest.close()
        except OSError as error:
            log.error("no room for a request of %d bytes so far: %s", guest.spool.size, error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            status, why = (507, "There is no room for it.") if full else (500, "It cannot be kept.")
            self._refuse(guest, LimitExceeded(why, code="no-room", status_hint=status))
        else:
            self._count(guest)
            if whole:
                self._is_whole(guest)
            else:
                self._plan(guest)

    def _is_whole(self, guest: Reading) -> None:
        del self._reading[guest]
        self._selector.unregister(guest.fd)
        self._due.pop(guest, None)
        self._ready.append(guest)
        if len(self._ready) == 1:
            self._deliver()

    def _deliver(self) -> None:
        """Whole requests go to the exit; when that is full they wait."""
        self._stop_waiting_for(self._ways.exit)
        while self._ready:
            guest = self._ready[0]
            if guest.has_left():
                log.info("a client has left while it waited; its request is skipped")
                self._gone += 1
            elif hand_over(self._ways.exit, guest.whole(), wait=0):
                if guest.beyond:
                    log.warning("%d bytes follow a body and are dropped", guest.beyond)
                with contextlib.suppress(OSError):
                    os.write(self._ways.bell, bytes((DELIVERED,)))
            elif _has_hung_up(self._ways.exit):
                self._refuse(guest, LimitExceeded("No worker can take it.", code="no-exit", status_hint=503))
                continue
            else:
                self._selector.register(self._ways.exit, selectors.EVENT_WRITE, self._deliver)
                return
            self._forget(guest)
            guest.close()

    def _refuse(self, guest: Reading, refusal: ProtocolError) -> None:
        """The request's place is taken by its answer."""
        log.warning("refused with %d (%s): %s", refusal.status_hint, refusal.code, refusal)
        self._too_late += refusal.status_hint == 408
        page = error_page(refusal.status_hint, str(refusal))
        self._forget(guest)
        guest.spool.close()
        self._welcome(Sending(Parcel(guest.fd, Errand.ANSWER, page), time.monotonic()))

    # Time.

    def _plan(self, guest: Guest) -> None:
        """See that the guest's deadline is looked at. One that moves on is looked at when the old one is over."""
        deadline = guest.deadline(self._patience)
        if deadline < self._due.get(guest, float("inf")):
            self._due[guest] = deadline
            heapq.heappush(self._agenda, (deadline, next(self._number), guest))

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        while self._agenda and self._agenda[0][0] <= now:
            due, _, guest = heapq.heappop(self._agenda)
            if self._due.get(guest) != due:
                continue
            del self._due[guest]
            if guest.deadline(self._patience) > now:
                self._plan(guest)
            elif isinstance(guest, Reading):
                self._refuse(guest, guest.too_late())
            else:
                if not guest.leaving:
                    log.info("an answer was not taken: the peer took nothing for %g s", self._patience.send)
                self._forget(guest)
                guest.close(os.close if guest.leaving else reset)
        if now >= self._drain_by:
            self._stop_waiting_for(self._ways.exit)
            for guest in [*self._reading, *self._ready]:
                self._refuse(guest, LimitExceeded("The server stops.", code="stopping", status_hint=503))

    # Going.

    def _forget(self, guest: Guest) -> None:
        """It is not here any more; its descriptors are the caller's to close."""
        if isinstance(guest, Sending):
            del self._sending[guest]
        elif guest in self._reading:
            del self._reading[guest]
        else:
            self._ready.remove(guest)
        self._due.pop(guest, None)
        self._held -= guest.held
        guest.held = 0
        with contextlib.suppress(KeyError):
            self._selector.unregister(guest.fd)
        if self._shut and self._ways.entrance.fileno() >= 0:
            self._shut = False
            self._selector.register(self._ways.entrance, selectors.EVENT_READ, self._let_in)

    def _note(self) -> None:
        """What `scgi status` shows, and how many are lost if this process is killed."""
        figures = LobbyFigures(
            len(self._reading) + len(self._ready), len(self._sending), self._too_late, self._gone
        )  # fmt: skip
        if figures != self._noted:
            self._noted = figures
            self._board.note_lobby(figures)


def _has_hung_up(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))


def _raise_limit() -> int:
    """As many descriptors as may be, within reason; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return min(soft if soft != resource.RLIM_INFINITY else _DESCRIPTORS, _DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
