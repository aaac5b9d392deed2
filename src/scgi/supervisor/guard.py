"""A clean answer from a worker that dies: of each request that runs for long, a duplicate of its connection is kept.

Linux lets a parent take one out of its child (pidfd_getfd(2), Linux 5.6). The mark in the scoreboard is set first, so
that the worker ends its side before it closes: the peer does not wait for the duplicate. Whatever has ended, or begun
to be answered, meanwhile is let go at once, so nobody is ever answered twice, or in another's place.

Imports `net`, `status`, `protocol` and its neighbours.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from scgi.net.handover import Errand, Parcel, hand_over
from scgi.protocol.response import error_page
from scgi.status.scoreboard import IN_APPLICATION, Report, Scoreboard, Sight, own_id
from scgi.supervisor.child import Child

log = logging.getLogger("scgi.pool")

_SYS_PIDFD_GETFD: Final = 438  # the same on every architecture but alpha
# It is gone, it has closed this number, or we have none left: that is no refusal.
_PASSING: Final = (errno.ESRCH, errno.EBADF, errno.EMFILE, errno.ENFILE, errno.EINVAL)
_SEND: Final = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)


@dataclass(frozen=True, slots=True)
class _Duplicate:
    pid: int
    serial: int
    sock: socket.socket


class Guard:
    """Of one pool's requests, whose workers have `threads` slots each. `off` says why it cannot guard; "" if it can.

    What peers still send when they have been answered is for the lobby, by its `entrance`.
    """

    def __init__(self, board: Scoreboard, threads: int, entrance: socket.socket) -> None:
        self._board = board
        self._threads = threads
        self._entrance = entrance
        self._kept: dict[int, _Duplicate] = {}  # by slot
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = soft // 2 if soft > 0 else sys.maxsize  # the pool needs some for itself
        self._call = _find()
        self._tried = False
        self.off = "" if self._call else "only Linux lets a parent duplicate its child's connection"

    @property
    def on(self) -> bool:
        return not self.off

    def try_on(self, child: Child, descriptor: int) -> None:
        """Find out, once, whether this kernel and this container allow it, with some descriptor of a worker's."""
        if not self._tried and self.on:
            with contextlib.suppress(OSError):
                os.close(self._duplicate(child, descriptor))
                self._tried = True

    def watch(self, child: Child, slot: int, sight: Sight) -> None:
        """Keep a duplicate of the connection of the request that was seen, if it still runs and has sent nothing."""
        self.release(slot)
        if (
            self.off
            or sight.stage not in IN_APPLICATION
            or sight.begun
            or sight.fd < 0
            or len(self._kept) >= self._most
        ):
            return
        self._board.take_interest(slot)
        try:
            duplicate = self._duplicate(child, sight.fd)
        except OSError:
            return
        now = self._board.sight(slot)
        same = (now.serial, now.fd, now.begun) == (sight.serial, sight.fd, False) and now.stage in IN_APPLICATION
        try:
            sock = socket.socket(fileno=duplicate)
        except OSError:  # no socket: the application has put something else there
            os.close(duplicate)
            return
        if same:
            self._kept[slot] = _Duplicate(child.pid, sight.serial, sock)
        else:
            sock.close()

    def let_go_of_ended(self) -> None:
        """Close the duplicates of requests that have ended, or begun to be answered."""
        for slot, kept in list(self._kept.items()):
            sight = self._board.sight(slot)
            if sight.serial != kept.serial or sight.begun or sight.stage not in IN_APPLICATION:
                self.release(slot)

    def release(self, slot: int) -> None:
        if (kept := self._kept.pop(slot, None)) is not None:
            kept.sock.close()

    def answer(self, child: Child, slot: int, report: Report, status: int) -> None:
        """In the place of a worker that has died, or stands still: a small page with the request's id."""
        kept = self._kept.pop(slot, None)
        if kept is None:
            return
        with kept.sock as sock:
            if (kept.pid, kept.serial) != (child.pid, report.serial) or report.begun:
                return
            thread = slot - child.first_slot + 1 if self._threads > 1 else 0
            name = report.request_id or own_id(child.pid, thread, report.serial)
            page = error_page(status, f"Request {name}")
            if report.request.startswith("HEAD "):
                page = page[: page.index(b"\r\n\r\n") + 4]
            with contextlib.suppress(OSError):  # the peer is gone
                sock.send(page, _SEND)
                log.warning(
                    "answered %d in the place of worker %d: %s (request %s)", status, child.pid, report.request, name
                )
                self._take_leave(sock)

    def _take_leave(self, sock: socket.socket) -> None:
        """So that what the peer has sent, or still sends, does not make the close a reset that loses the answer."""
        sock.shutdown(socket.SHUT_WR)
        try:
            more = sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return  # as it should be: it has nothing to say
        if more:
            hand_over(self._entrance, Parcel(sock.fileno(), Errand.ANSWER), wait=0)

    def descriptors(self) -> list[int]:
        """What children must not keep open."""
        return [kept.sock.fileno() for kept in self._kept.values()]

    def close(self) -> None:
        for slot in list(self._kept):
            self.release(slot)

    def _duplicate(self, child: Child, descriptor: int) -> int:
        """OSError if that cannot be; the guard is off if it never can."""
        assert self._call is not None
        try:
            process = os.pidfd_open(child.pid)
            try:
                found: int = self._call(_SYS_PIDFD_GETFD, process, descriptor, 0)
                number = ctypes.get_errno()
            finally:
                os.close(process)
            if found < 0:
                raise OSError(number, os.strerror(number))
        except OSError as error:
            if error.errno not in _PASSING:
                self._give_up(error)
            raise
        return found

    def _give_up(self, error: OSError) -> None:
        self.off = f"this system refuses to duplicate a worker's connection: {error.strerror}"
        log.warning("guard: off; a client whose worker dies gets no answer (%s)", self.off)
        self.close()


def _find() -> Callable[..., Any] | None:
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_uint]
    call.restype = ctypes.c_long
    return call
