"""A load on an SCGI server: many requests, so many at a time or so many a second, and what became of each.

One process, one thread, one selector; a request costs as little Python as it can, because the server should be the one
that is busy. `run_load` spreads a load over processes where that is not enough. What an answer is, and when it is
whole, `exchange` judges. Imports net, errors and its neighbours in client.
"""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import resource
import select
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from scgi.client.exchange import Exchange
from scgi.client.plan import Plan
from scgi.client.tally import CUT, MALFORMED, REFUSED, RESET, SECOND, TIMED_OUT, Tally
from scgi.errors import MalformedResponse, ScgiError
from scgi.net.address import Address

_CHUNK: Final = 65536
_REST: Final = 10_000_000  # ns after a refused connection: where nobody is, asking faster tells no more
_FULL_QUEUE: Final = 1_000_000  # ns between looks whether a full queue has room again; no event says so
_SPARE: Final = 50  # descriptors besides the connections'
_KINDS: Final = {"reset": RESET, "no-answer": CUT, "head-truncated": CUT, "body-truncated": CUT}  # else malformed

Place = tuple[socket.AddressFamily, Any]  # where to connect to


class Stop:
    """Ends a load early. `ring` may be called by a signal handler; every process that shares it hears it."""

    def __init__(self) -> None:
        self.heard, self._bell = socket.socketpair()
        self._bell.setblocking(False)

    def ring(self) -> None:
        try:
            self._bell.send(b"\0")
        except OSError:  # rung often enough
            pass

    def leave_to_parent(self) -> None:
        """In a child: only the parent rings, and its death is heard too."""
        self._bell.close()

    def close(self) -> None:
        self.heard.close()
        self._bell.close()


def run_load(plan: Plan, stop: Stop, processes: int = 1) -> Tally:
    """Carry it out. Raises `ScgiError` with a sentence if the server cannot be reached at all."""
    places = _places(plan.address)
    _allow_descriptors(-(-plan.concurrency // processes))
    if processes == 1:
        return _Load(plan, places, stop).run()
    pipes = [_fork_part(plan.part(index, processes), places, stop) for index in range(processes)]
    tallies = []
    for found in [_hear(pipe) for pipe in pipes]:
        if isinstance(found, ScgiError):
            raise found
        tallies.append(found)
    for other in tallies[1:]:
        tallies[0].merge(other)
    return tallies[0]


def _places(address: Address) -> Sequence[Place]:
    if address.kind == "unix":
        return [(socket.AF_UNIX, address.path)]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ScgiError(f"cannot connect to {address}: the host name is not known ({error.strerror})") from None
    return [(family, where) for family, _, _, _, where in found]


def _allow_descriptors(connections: int) -> None:
    needed = connections + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < needed:
        raise ScgiError(f"{connections} connections at a time need {needed} file descriptors, and {hard} are allowed")
    if resource.RLIM_INFINITY != soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _fork_part(plan: Plan, places: Sequence[Place], stop: Stop) -> Connection:
    """Start a process for its part of the load; returns the pipe that its `Tally` comes through, or its `ScgiError`."""

    def work() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
        stop.leave_to_parent()
        try:
            told.send(_Load(plan, places, stop).run())
        except ScgiError as error:
            told.send(error)

    heard, told = multiprocessing.Pipe(duplex=False)
    multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
    told.close()
    return heard


def _hear(pipe: Connection) -> Tally | ScgiError:
    try:
        found: Tally | ScgiError = pipe.recv()
    except EOFError:
        return ScgiError("a process of the load has died")
    return found


class _Request:
    """One connection, and what is known of it."""

    __slots__ = ("began", "due", "events", "exchange", "place", "reached", "reset", "sock", "to_send")

    def __init__(self, exchange: Exchange, to_send: list[bytes | memoryview], due: int, began: int) -> None:
        self.exchange = exchange
        self.to_send = to_send
        self.due = due
        self.began = began
        self.events = 0  # that the selector looks for
        self.reached = self.reset = False  # by the server
        self.place = 0
        self.sock: socket.socket


class _Load:
    """One process's part. Each of its connections is free, in `busy`, or resting."""

    def __init__(self, plan: Plan, places: Sequence[Place], stop: Stop) -> None:
        self.plan = plan
        self.places = places
        self.place = 0  # a name may have several addresses: the first that somebody listens at
        self.reached = False  # somebody is there
        self.stop = stop
        self.tally = Tally()
        self.begun = 0
        self.over = False  # no request begins any more
        self.free = plan.concurrency
        self.busy: dict[_Request, None] = {}  # the oldest first
        self.queue: deque[_Request] = deque()  # those of them that wait for room in the server's queue
        self.resting: deque[int] = deque()  # until when each that was refused rests
        self.timeout = int(plan.timeout * SECOND)
        self.end = 0

    def run(self) -> Tally:
        tally, cpu = self.tally, time.process_time()
        tally.began = time.monotonic_ns()
        if self.plan.seconds is not None:
            self.end = tally.began + int(self.plan.seconds * SECOND)
        with selectors.DefaultSelector() as self.selector:
            self.selector.register(self.stop.heard, selectors.EVENT_READ)
            try:
                self._loop()
            except OSError as error:
                raise ScgiError(f"the load cannot go on: {error.strerror or error}") from None
            finally:
                for request in self.busy:
                    request.sock.close()
        tally.ended = time.monotonic_ns()
        tally.unfinished = len(self.busy)
        tally.unsent = self._unsent()
        tally.cpu = (time.process_time() - cpu) / tally.seconds
        return tally

    def _loop(self) -> None:
        while True:
            now = time.monotonic_ns()
            self._give_up(now)
            self._begin_due(now)
            self.over = self.begun == self.plan.requests or (self.end > 0 and now >= self.end)
            if self.over and not self.busy:
                return
            for key, events in self._ready(now):
                if key.data is None:
                    self.tally.interrupted = True
                    return
                self._go_on(key.data, events)

    # -- when ----------------------------------------------------------------------------------------------------------

    def _next_due(self) -> int | None:
        """When the next request is due; None: no other begins."""
        if self.over or self.begun == self.plan.requests:
            return None
        due = self.tally.began
        if self.plan.rate is not None:
            due += int((self.plan.first + self.begun * self.plan.step) * SECOND / self.plan.rate)
        return None if self.end and due >= self.end else due

    def _begin_due(self, now: int) -> None:
        while self.resting and self.resting[0] <= now:
            self.resting.popleft()
            self.free += 1
        while self.queue and (self.queue[0] not in self.busy or self._connect(self.queue[0])):
            self.queue.popleft()
        if self.plan.rate is None and self.end and now >= self.end:
            return  # at a rate, the first look after the end is for what was due just before it
        while self.free and (due := self._next_due()) is not None and due <= now:
            self._begin(due)

    def _unsent(self) -> int:
        if self.plan.rate is None or self.plan.seconds is None:
            return 0
        due = (min(self.tally.ended, self.end) - self.tally.began) * self.plan.rate / SECOND
        return max(0, math.ceil((due - self.plan.first) / self.plan.step) - self.begun)

    def _ready(self, now: int) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, or until there is something to do without any."""
        moments = [self.end] if now < self.end else []
        if self.busy:
            moments.append(next(iter(self.busy)).began + self.timeout)
        if self.queue:
            moments.append(now + _FULL_QUEUE)
        if self.resting:
            moments.append(self.resting[0])
        if self.free and (due := self._next_due()) is not None:
            moments.append(due)
        wait = max(0, min(moments) - now) / SECOND
        if wait and self.plan.rate is not None and hasattr(self.selector, "fileno"):
            # epoll waits for whole milliseconds, which is long compared with a request: this does for microseconds.
            select.select([self.selector], [], [], wait)
            wait = 0
        return self.selector.select(wait)

    # -- a request's way -----------------------------------------------------------------------------------------------

    def _begin(self, due: int) -> None:
        template = self.plan.template
        # Of the exchange, the answer's half: the request's head has been built, but for its number.
        exchange = Exchange((), len(template.body), head_request=template.method == "HEAD")
        to_send: list[bytes | memoryview] = [template.head(self.plan.first + self.begun * self.plan.step)]
        if template.body:
            to_send.append(exchange.body(template.body))
        began = time.monotonic_ns()
        request = _Request(exchange, to_send, began if self.plan.rate is None else due, began)
        self.begun += 1
        self.free -= 1
        self.busy[request] = None
        self._open(request)

    def _open(self, request: _Request) -> None:
        request.place = self.place
        request.sock = sock = socket.socket(self.places[self.place][0], socket.SOCK_STREAM)
        sock.setblocking(False)
        if request.exchange.body_length and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the end waits for an acknowledgement
        if not self._connect(request):
            self.queue.append(request)
            self.tally.waited += 1

    def _connect(self, request: _Request) -> bool:
        """False if the queue of a unix socket is full; over TCP the kernel waits for room by itself."""
        error = request.sock.connect_ex(self.places[request.place][1])
        if error == errno.EAGAIN and request.sock.family == socket.AF_UNIX:
            self.reached = True
            return False
        if error in (0, errno.EINPROGRESS):
            request.reached = not error
            self._send(request)  # at once: of a server nearby the connection is there by now
        else:
            self._refused(request, error)
        return True

    def _go_on(self, request: _Request, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(request)
        if events & selectors.EVENT_READ and request in self.busy:
            self._receive(request)

    def _send(self, request: _Request) -> None:
        to_send = request.to_send
        try:
            sent = request.sock.sendmsg(to_send)
        except BlockingIOError:
            pass
        except OSError as error:
            if request.reached:  # it reads no more; its answer may be there already
                to_send.clear()
                request.reset = error.errno == errno.ECONNRESET
            elif error.errno != errno.ENOTCONN:  # what BSDs say of a connection that is not there yet
                return self._refused(request, error.errno or 0)
        else:
            request.reached = self.reached = True
            self.tally.sent += sent
            while to_send and sent >= len(to_send[0]):
                sent -= len(to_send.pop(0))
            if to_send:
                to_send[0] = memoryview(to_send[0])[sent:]
        self._watch(request, selectors.EVENT_READ | (selectors.EVENT_WRITE if to_send else 0))

    def _watch(self, request: _Request, events: int) -> None:
        if not request.events:
            self.selector.register(request.sock, events, request)
        elif events != request.events:
            self.selector.modify(request.sock, events, request)
        request.events = events

    def _receive(self, request: _Request) -> None:
        exchange = request.exchange
        try:
            data = request.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data, request.reset = b"", True
        self.tally.received += len(data)
        try:
            if data:
                exchange.feed(data)
            elif request.reset:
                exchange.reset()
            else:
                exchange.eof()
        except MalformedResponse as error:
            return self._fail(request, _KINDS.get(error.code, MALFORMED), str(error))
        if exchange.finished:
            self._finish(request)

    # -- a request's end -----------------------------------------------------------------------------------------------

    def _finish(self, request: _Request) -> None:
        answer = request.exchange.answer
        assert answer is not None
        self.tally.latency.add(time.monotonic_ns() - request.due)
        self.tally.statuses[answer.status] += 1
        if answer.length is not None:
            # Over TCP, who closes first cannot use the port for a minute. The server does, and mostly has by now.
            try:
                request.sock.recv(1)
            except OSError:
                pass
        self._close(request)

    def _refused(self, request: _Request, error: int) -> None:
        if not self.reached:
            if request.place == len(self.places) - 1:
                raise ScgiError(_nobody(self.plan.address, error))
            self._leave(request)
            self.place = max(self.place, request.place + 1)
            return self._open(request)
        self._fail(request, REFUSED, os.strerror(error))
        self.free -= 1
        self.resting.append(time.monotonic_ns() + _REST)

    def _give_up(self, now: int) -> None:
        while self.busy and now - (request := next(iter(self.busy))).began >= self.timeout:
            if not self.reached:
                raise ScgiError(f"cannot connect to {self.plan.address}: no answer within {self.plan.timeout:g} s")
            self._fail(request, TIMED_OUT, f"no whole answer within {self.plan.timeout:g} s")

    def _fail(self, request: _Request, kind: str, reason: str) -> None:
        self.tally.failures[kind] += 1
        self.tally.reasons.setdefault(kind, reason)
        self._close(request)

    def _close(self, request: _Request) -> None:
        del self.busy[request]
        self._leave(request)
        self.free += 1

    def _leave(self, request: _Request) -> None:
        if request.events:
            self.selector.unregister(request.sock)
            request.events = 0
        request.sock.close()


def _nobody(address: Address, error: int) -> str:
    if error in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no server listens at {address}"
    return f"cannot connect to {address}: {os.strerror(error)}"
