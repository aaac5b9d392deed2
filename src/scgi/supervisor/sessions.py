"""Requests of one session go to one child, in order: the dispatcher behind `scgi.session_server`.

It reads requests itself until they are whole, with limits and deadlines, so that a slow sender holds up neither the
dispatcher nor a child; then it hands each to its session's child. Several sessions share a child once there are as
many as may be; such a child takes its sessions in turn. Imports `workers`, `net`, `status`, `protocol`, `errors`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import signal
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from scgi.errors import ProtocolError
from scgi.net.handover import Errand, Parcel, hand_over, pair
from scgi.net.listen import Listener
from scgi.protocol.request import parse_head
from scgi.protocol.response import build_head, error_page
from scgi.status.scoreboard import BUSY, Scoreboard
from scgi.supervisor.bell import Bell
from scgi.supervisor.child import describe_end, fork
from scgi.workers.blocking import WorkerPlan
from scgi.workers.deliveries import DeliveredWorker
from scgi.workers.guests import Reading, Sending

log = logging.getLogger("scgi.sessions")

_CONNECTIONS: Final = 400  # at once, those that wait included; the rest stays in the listener's queue
_REMEMBERED: Final = 10_000  # sessions
_GRACE: Final = 30.0  # seconds for what has arrived, after TERM


@dataclass(frozen=True, slots=True)
class SessionPlan:
    worker: WorkerPlan
    session_of: Callable[[dict[str, str]], str]
    max_children: int
    max_queue: int
    idle: float  # seconds after which an idle child is retired


@dataclass(eq=False, slots=True)
class _Child:
    slot: int
    pid: int
    ways: socket.socket
    free: bool = False
    proven: bool = False
    stale: bool = False
    current: Parcel | None = None
    session: str = ""  # whose that is
    serial: int = 0  # of the request before it
    used: float = 0.0
    queues: OrderedDict[str, deque[Parcel]] = field(default_factory=OrderedDict)

    def load(self) -> int:
        return sum(map(len, self.queues.values())) + (self.current is not None)


class Sessions:
    """Runs until TERM or INT."""

    def __init__(self, plan: SessionPlan, listeners: list[Listener], bell: Bell) -> None:
        self._plan, self._listeners, self._bell = plan, listeners, bell
        self._board = Scoreboard(plan.max_children)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}  # by slot
        self._homes: OrderedDict[str, _Child] = OrderedDict()
        self._leaving: list[int] = []  # pids of children that are to end by themselves
        self._guests: set[Reading | Sending] = set()
        self._accepting = self._stopping = False
        self._end = float("inf")

    def run(self) -> None:
        self._selector.register(self._bell.out, selectors.EVENT_READ, self._hear)
        for listener in self._listeners:
            listener.sock.setblocking(False)
        while not self._is_over():
            self._accept_or_not()
            for key, _ in self._selector.select(1.0):
                key.data(key.fileobj)
            self._look_at_time(time.monotonic())
        for child in list(self._children.values()):
            self._let_go(child)
        end = time.monotonic() + 5
        while self._leaving and time.monotonic() < end:
            self._reap()
            time.sleep(0.01)
        for pid in self._leaving:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _is_over(self) -> bool:
        busy = self._guests or any(child.load() for child in self._children.values())
        return self._stopping and (not busy or time.monotonic() > self._end)

    def _hear(self, _: Any) -> None:
        for signum in self._bell.hear():
            if signum in (signal.SIGTERM, signal.SIGINT):
                self._end = time.monotonic() + (0 if self._stopping else _GRACE)
                self._stopping = True
                log.info("stopping: what has arrived is answered first")
            elif signum == signal.SIGHUP:
                log.info("children are replaced, each after the request that it answers")
                for child in list(self._children.values()):
                    child.stale = True
                    self._feed(child)
            elif signum == signal.SIGCHLD:
                self._reap()

    def _reap(self) -> None:
        for pid in list(self._leaving):
            with contextlib.suppress(ChildProcessError):
                if not os.waitpid(pid, os.WNOHANG)[0]:
                    continue
            self._leaving.remove(pid)

    # Connections.

    def _accept_or_not(self) -> None:
        waiting = len(self._guests) + sum(child.load() for child in self._children.values())
        wanted = not self._stopping and waiting < _CONNECTIONS
        if wanted != self._accepting:
            for listener in self._listeners:
                if wanted:
                    self._selector.register(listener.sock, selectors.EVENT_READ, self._accept)
                else:
                    self._selector.unregister(listener.sock)
            self._accepting = wanted

    def _accept(self, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError | ConnectionError):
                log.error("cannot accept a connection: %s", error.strerror)
                time.sleep(0.1)
            return
        connection.setblocking(False)
        worker = self._plan.worker
        parcel = Parcel(connection.detach(), Errand.REQUEST, began=time.monotonic())
        self._welcome(Reading(parcel, worker.limits, worker.require_scgi), selectors.EVENT_READ)

    def _welcome(self, guest: Reading | Sending, event: int) -> None:
        self._guests.add(guest)
        self._selector.register(guest.fd, event, lambda _: self._turn(guest))

    def _forget(self, guest: Reading | Sending) -> None:
        self._guests.discard(guest)
        self._selector.unregister(guest.fd)

    def _turn(self, guest: Reading | Sending) -> None:
        try:
            done = guest.turn(time.monotonic())
        except ProtocolError as refusal:
            assert isinstance(guest, Reading)
            self._refuse(guest, refusal)
        except OSError:  # PeerGone too
            self._forget(guest)
            guest.close()
        else:
            if isinstance(guest, Sending):
                if done:
                    self._forget(guest)
                    guest.close()
                elif guest.leaving:
                    self._selector.modify(guest.fd, selectors.EVENT_READ, lambda _: self._turn(guest))
            elif done:
                self._forget(guest)
                self._assign(guest.whole())

    def _refuse(self, guest: Reading, refusal: ProtocolError) -> None:
        log.warning("refused with %d (%s): %s", refusal.status_hint, refusal.code, refusal)
        self._forget(guest)
        guest.spool.close()
        self._say(guest.fd, error_page(refusal.status_hint, str(refusal)))

    def _say(self, fd: int, page: bytes) -> None:
        os.set_blocking(fd, False)
        self._welcome(Sending(Parcel(fd, Errand.ANSWER, page), time.monotonic()), selectors.EVENT_WRITE)

    def _give_up(self, parcel: Parcel, status: int, sentence: str) -> None:
        if parcel.file >= 0:
            os.close(parcel.file)
        self._say(parcel.fd, error_page(status, sentence))

    def _busy(self, parcel: Parcel, sentence: str) -> None:
        if parcel.file >= 0:
            os.close(parcel.file)
        body = f"503 Service Unavailable\n{sentence}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "5")]
        self._say(parcel.fd, build_head("503 Service Unavailable", headers, len(body))[0] + body)

    def _look_at_time(self, now: float) -> None:
        patience = self._plan.worker.patience
        for guest in [guest for guest in self._guests if guest.deadline(patience) < now]:
            if isinstance(guest, Reading):
                self._refuse(guest, guest.too_late())
            else:
                self._forget(guest)
                guest.close()
        for child in list(self._children.values()):
            if child.free and not child.load() and now - child.used > self._plan.idle:
                self._let_go(child)

    # Children.

    def _assign(self, parcel: Parcel) -> None:
        os.set_blocking(parcel.fd, False)
        data = parcel.data if parcel.file < 0 else os.pread(parcel.file, parcel.offset, 0)
        head = parse_head(data, self._plan.worker.limits, self._plan.worker.require_scgi)
        assert head is not None
        session = self._plan.session_of(head.variables)
        child = self._homes.get(session) or self._home(parcel)
        if child is None:
            self._busy(parcel, "No process can be started.")
            return
        queue = child.queues.setdefault(session, deque())
        if len(queue) >= self._plan.max_queue:
            log.warning("a session has %d requests waiting: refused with 503", len(queue))
            self._busy(parcel, "Too many requests of this session are waiting.")
            return
        self._homes[session] = child
        self._homes.move_to_end(session)
        if len(self._homes) > _REMEMBERED:
            oldest = next(iter(self._homes))
            if oldest not in self._homes[oldest].queues:
                del self._homes[oldest]
        queue.append(parcel)
        self._feed(child)

    def _home(self, parcel: Parcel) -> _Child | None:
        """For a new session: a new child while there may be one, else the least loaded, longest unused."""
        free = set(range(self._plan.max_children)) - self._children.keys()
        if free and (child := self._spawn(min(free), [parcel])) is not None:
            return child
        return min(self._children.values(), key=lambda one: (one.load(), one.used), default=None)

    def _spawn(self, slot: int, held: list[Parcel]) -> _Child | None:
        ours, theirs = pair()
        bell = self._bell
        self._board.clear(slot)
        parcels = held + [p for c in self._children.values() for q in c.queues.values() for p in q]
        parcels += [child.current for child in self._children.values() if child.current]
        close = [ours.fileno(), *(child.ways.fileno() for child in self._children.values())]
        close += [fd for parcel in parcels for fd in (parcel.fd, parcel.file) if fd >= 0]
        close += [
            fd
            for guest in self._guests
            for fd in (guest.fd, guest.spool.file if isinstance(guest, Reading) else -1)
            if fd >= 0
        ]
        close += [listener.sock.fileno() for listener in self._listeners]
        close += [self._selector.fileno(), bell.out, bell.lifeline_in]

        def run() -> int:
            return DeliveredWorker(
                self._plan.worker, self._board, slot, bell.into, bell.lifeline_out, theirs
            ).run()  # fmt: skip

        try:
            pid = fork(run, close, bell.lifeline_out)
        except OSError as error:
            log.error("cannot start a child: %s", error.strerror)
            ours.close()
            return None
        finally:
            theirs.close()
        child = self._children[slot] = _Child(slot, pid, ours, used=time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._listen(child))
        return child

    def _listen(self, child: _Child) -> None:
        """It is free, or it is gone."""
        try:
            said = child.ways.recv(16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._bury(child)
            return
        child.free = child.proven = True
        child.used = time.monotonic()
        if child.current is not None:
            child.current.close()
            child.current = None
        self._feed(child)

    def _feed(self, child: _Child) -> None:
        if not child.free:
            return
        if child.stale:
            self._replace(child)
            return
        if not child.queues:
            return
        session, queue = child.queues.popitem(last=False)
        parcel = queue.popleft()
        if queue:
            child.queues[session] = queue  # behind the others
        child.serial = self._board.report(child.slot).serial
        if hand_over(child.ways, parcel):
            child.current, child.session, child.free = parcel, session, False
        elif _has_hung_up(child.ways):  # that comes to our ears in a moment; its successor gets the request
            child.free = False
            self._put_back(child, session, parcel)
        else:
            self._give_up(parcel, 502, "The request could not be handed over.")

    def _put_back(self, child: _Child, session: str, parcel: Parcel) -> None:
        child.queues.setdefault(session, deque()).appendleft(parcel)
        child.queues.move_to_end(session, last=False)

    def _let_go(self, child: _Child) -> None:
        """It ends after what it does; its sessions have no home any more."""
        self._selector.unregister(child.ways)
        child.ways.close()
        self._leaving.append(child.pid)
        del self._children[child.slot]
        self._homes = OrderedDict((name, home) for name, home in self._homes.items() if home is not child)

    def _replace(self, child: _Child) -> None:
        """What waits, waits for its successor."""
        homes = [name for name, home in self._homes.items() if home is child]
        self._let_go(child)
        if not child.queues:
            return
        successor = (
            self._spawn(child.slot, [p for queue in child.queues.values() for p in queue]) if child.proven else None
        )
        if successor is None:
            for queue in child.queues.values():
                for parcel in queue:
                    self._busy(parcel, "The process for this session could not be started.")
            return
        successor.queues = child.queues
        self._homes.update(dict.fromkeys(homes, successor))

    def _bury(self, child: _Child) -> None:
        """It has closed its end: it has died, or is of no use any more. What it had not begun, its successor gets."""
        os.kill(child.pid, signal.SIGKILL)  # does nothing to one that is ending
        _, status = os.waitpid(child.pid, 0)
        report = self._board.report(child.slot)
        if status or not child.proven:
            log.error("child %d %s", child.pid, describe_end(status))
        current, child.current = child.current, None
        if current is not None:
            if report.serial == child.serial and child.proven:
                self._put_back(child, child.session, current)
            elif report.stage in BUSY and not report.begun:
                self._give_up(current, 502, "The process that worked on it has died.")
            else:
                current.close()
        self._replace(child)
        self._leaving.remove(child.pid)


def _has_hung_up(ways: socket.socket) -> bool:
    poller = select.poll()
    poller.register(ways, 0)
    return bool(poller.poll(0))
