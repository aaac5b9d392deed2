"""Where a worker's connections come from: one listener, several, or what is left in the queues at the end.

Waiting is always for one descriptor: the listener itself (the fast form, a plain blocking `accept`), or an epoll over
several. `stop` puts a dead socket over this process's copy of it, which ends the waiting, wherever a thread is in it;
`wake` does the same for a moment, so that what waits at the lobby's exit is taken first.

With an allow-list, whoever is not on it is turned away here. Imports `status`, `net` and its neighbours.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
import time
from typing import Any, Final

from scgi.net.allow import AllowList
from scgi.net.stream import reset
from scgi.status.scoreboard import DELIVERIES, DRAINING, Scoreboard
from scgi.workers.forked import cover
from scgi.workers.slow import Accept, SlowPeers

log = logging.getLogger("scgi.worker")

_SHUT: Final = select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # the listener takes no more connections
_BROKEN: Final = (errno.EINVAL, errno.EBADF, errno.ENOTSOCK, errno.EOPNOTSUPP)
_QUIET: Final = 0.1  # seconds without a connection after which a draining TCP queue counts as empty


class Intake:
    """The listeners of one worker process; `owned` says of each whether it is ours to drain.

    `allow` says which TCP peers may connect; those that it refuses are counted at the worker's first `slot`. `slow`
    brings what has become whole in the lobby.
    """

    def __init__(
        self,
        listeners: list[socket.socket],
        owned: list[bool],
        board: Scoreboard,
        allow: AllowList | None,
        slot: int,
        slow: SlowPeers,
    ) -> None:
        self._slow = slow
        self._listeners = listeners
        self._owned = owned
        self._board = board
        self._several = None if len(listeners) == 1 else _watch(listeners)
        self._wait_fd = (self._several or listeners[0]).fileno()
        self._dead = socket.socket(listeners[0].family, socket.SOCK_STREAM)
        self._original = os.dup(self._wait_fd)
        single: Accept = listeners[0]._accept  # type: ignore[attr-defined]
        self.accept: Accept = single if self._several is None else self._accept_any
        self._rest: Accept = self._accept_rest
        if allow is not None:
            guard = _Guard(allow, board, slot)
            self.accept, self._rest = guard.at(self.accept), guard.at(self._rest)

    def stop(self) -> None:
        """Nobody waits any more: every `accept` of this process fails from now on. Safe in a signal handler."""
        self._cover(self._original, self._wait_fd)

    def _cover(self, *descriptors: int) -> None:
        with contextlib.suppress(OSError):  # the application has closed all descriptors it found
            for descriptor in descriptors:
                os.dup2(self._dead.fileno(), descriptor, inheritable=False)

    def wake(self) -> None:
        """Something else than the listeners is to be looked at: the lobby's exit; or the end, which one listener tells
        by itself and several do not. Safe in a signal handler."""
        memory = self._board.memory
        if memory[DELIVERIES] or (self._several is not None and memory[DRAINING]):
            self._cover(self._wait_fd)

    def _is_sound(self) -> bool:
        """Whether what is waited for is as it was: then `accept` has failed because it was covered for a moment."""
        try:
            if self._several is not None:
                return bool(os.fstat(self._original))
            listener = socket.socket(fileno=os.dup(self._original))
        except OSError:
            return False
        poller = select.poll()
        poller.register(listener, _SHUT)
        with listener:
            listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return bool(listens) and not any(event & _SHUT for _, event in poller.poll(0))

    def bury(self, connection: int) -> None:
        """Nobody is to be answered on it: reading from it fails."""
        os.dup2(self._dead.fileno(), connection, inheritable=False)

    def abandon(self, connections: list[int]) -> None:
        """This process is not the worker: it lets go of its copies of the listeners and of these connections."""
        listeners = [listener.fileno() for listener in self._listeners]
        cover([self._wait_fd, self._original, *listeners, *connections], self._dead.fileno())

    def after(self, accept: Accept, error: OSError) -> Accept | None:
        """What to call after `accept` failed: the same again, the lobby's exit, the one for draining; None: no more."""
        memory = self._board.memory
        draining = memory[DRAINING]
        with contextlib.suppress(OSError):
            os.dup2(self._original, self._wait_fd, inheritable=False)
        if memory[DELIVERIES] and accept != self._slow.take:
            return self._slow.take
        if accept == self._rest and error.errno == errno.EINVAL:
            return None
        if not draining and accept != self._slow.take:
            if isinstance(error, BlockingIOError):  # somebody who shares the socket made it so
                self._listeners[0].setblocking(True)
            elif error.errno in _BROKEN and not self._is_sound():
                log.error("cannot accept connections any more: %s; this worker ends", error.strerror)
                return None
        return self._rest if draining else self.accept

    def _accept_any(self) -> tuple[int, Any]:
        """Wait on several listeners and take from one that is ready."""
        assert self._several is not None
        while True:
            for fd, _ in self._several.poll():
                for listener in self._listeners:
                    if listener.fileno() == fd:
                        try:
                            accepted: tuple[int, Any] = listener._accept()  # type: ignore[attr-defined]
                            return accepted
                        except BlockingIOError:
                            continue
                        except OSError as error:
                            if error.errno != errno.EINVAL:
                                raise
                            self._several.unregister(fd)  # shut down and empty

    def _accept_rest(self) -> tuple[int, Any]:
        """Draining: take what is queued on our own listeners; OSError EINVAL once they have been quiet for a while."""
        own = {
            listener.fileno(): listener for listener, owned in zip(self._listeners, self._owned, strict=True) if owned
        }
        poller = select.poll()
        for fd in own:
            poller.register(fd, select.POLLIN | _SHUT)
        while own and (ready := poller.poll(int(_QUIET * 1000))):
            for fd, event in ready:
                try:
                    accepted: tuple[int, Any] = own[fd]._accept()  # type: ignore[attr-defined]
                    return accepted
                except OSError as error:
                    empty = event & _SHUT if isinstance(error, BlockingIOError) else error.errno == errno.EINVAL
                    if empty:  # shut down, and nothing is left in it
                        poller.unregister(fd)
                        del own[fd]
                    elif not isinstance(error, BlockingIOError):
                        raise
        raise OSError(errno.EINVAL, "the queue is empty")


class _Guard:
    """Stands between a worker and those who may not connect over TCP."""

    def __init__(self, allow: AllowList, board: Scoreboard, slot: int) -> None:
        self._admits = allow.admits
        self._board = board
        self._slot = slot
        self._lock = threading.Lock()  # a worker's threads count in one place

    def at(self, accept: Accept) -> Accept:
        """The same `accept`, for those who may."""
        admits = self._admits

        def accept_admitted() -> tuple[int, Any]:
            while True:
                fd, peer = accept()
                if type(peer) is not tuple or admits(peer[0]):  # a unix socket's peer is a text
                    return fd, peer
                self._turn_away(fd, peer[0])

        return accept_admitted

    def _turn_away(self, fd: int, host: str) -> None:
        with self._lock:
            unsaid = self._board.refuse_peer(self._slot, time.monotonic())
        reset(fd)
        if unsaid:
            log.warning("refused %s, which is not in allow (%d refused so far)", host, self._board.refused_peers())


class _Poll:
    """For systems without epoll: the same three methods. A dead socket over its pipe wakes it, as over an epoll."""

    def __init__(self) -> None:
        self._wake = os.pipe()[0]
        self._poller = select.poll()
        self._poller.register(self._wake, select.POLLIN)
        self.unregister = self._poller.unregister

    def register(self, fd: int, _: int) -> None:
        self._poller.register(fd, select.POLLIN)

    def fileno(self) -> int:
        return self._wake

    def poll(self) -> list[tuple[int, int]]:
        ready = self._poller.poll()
        if any(fd == self._wake for fd, _ in ready):
            raise OSError(errno.EINVAL, "woken")
        return ready


def _watch(listeners: list[socket.socket]) -> select.epoll | _Poll:
    """Something to wait on for several listeners; where the system can, it wakes one waiter per connection."""
    watch = select.epoll() if hasattr(select, "epoll") else _Poll()
    for listener in listeners:
        listener.setblocking(False)
        watch.register(listener.fileno(), getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLEXCLUSIVE", 0))
    return watch
