"""An SCGI server that misbehaves, and what a truthful front makes of it.

``TABLE`` is one row per misbehaviour: what the server does with a connection (``play``), the request to make, and which
answers tell the truth. A front (the gateway, cgi2scgi, a module of a web server) is held to it like this::

    with HostileServer("127.0.0.1:21000") as server:       # or "unix:/path"
        for row in TABLE:
            server.row = row
            seen = ask_http("127.0.0.1", port, row)        # through the front, which forwards to the server
            row.truth.judge(seen)
            server.settle()                                # the front has let go of the connection

The request's path is ``/hostile/NAME``, so that logs say what was played.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from support.addresses import split_address
from support.wire import Reset, raw_exchange

MEGA: Final = 1 << 20
PATIENCE: Final = 30.0  # seconds until a play is given up: longer than any front under test waits
LARGE: Final = 64 * MEGA  # more than all buffers on the way hold

OK: Final = b"Status: 200 OK\r\nContent-Type: text/plain\r\n"
TEN: Final = OK + b"Content-Length: 10\r\n\r\n"
OPEN: Final = OK + b"\r\n"  # its body ends with the connection


# -- what fronts show ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client of a front got. ``status`` 0: nothing that begins with one; ``body`` None: nobody looked."""

    status: int
    body: bytes | None
    whole: bool  # it is framed, and came to its end
    seconds: float

    def __str__(self) -> str:
        body = "?" if self.body is None else f"{len(self.body)} bytes {self.body[:60]!r}"
        return f"{self.status} {'whole' if self.whole else 'cut'} after {self.seconds:.2f} s: {body}"


@dataclass(frozen=True, slots=True)
class Truth:
    """Which answers are truthful: one of these statuses with a page of the front's own; `body`, whole; or a cut."""

    refusals: frozenset[int] = frozenset()
    answers: tuple[tuple[int, bytes], ...] = ()
    cut: bool = False  # to have begun and to end so that everybody sees that it is not whole

    def holds(self, seen: Seen) -> bool:
        if not seen.whole:
            return self.cut
        if seen.status in self.refusals:
            return True
        return any(seen.status == status and seen.body in (None, body) for status, body in self.answers)

    def judge(self, seen: Seen) -> None:
        assert self.holds(seen), f"expected {self}, seen {seen}"

    def __str__(self) -> str:
        said = [str(status) for status in sorted(self.refusals)]
        said += [f"{status} with {body[:20]!r}" for status, body in self.answers]
        return " or ".join(said + ["a visible cut"] * self.cut)


def refused(*statuses: int) -> Truth:
    return Truth(refusals=frozenset(statuses))


def answered(status: int, body: bytes) -> Truth:
    """Or refused with a 502: a front may be stricter than it must."""
    return Truth(refusals=frozenset({502}), answers=((status, body),))


def broken(*statuses: int) -> Truth:
    """A cut after the head; who has not passed on a byte of it may still say so with a status."""
    return Truth(refusals=frozenset(statuses), cut=True)


# -- what the server does --------------------------------------------------------------------------------------------


class Left(Exception):
    """The front let go of the connection."""


@dataclass(slots=True)
class Talk:
    """One connection, from the server's side."""

    peer: socket.socket
    over: threading.Event  # the front has answered
    sent: int = 0
    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE)

    def read_request(self, body: bool = True) -> None:
        """The whole request, or its head alone."""
        received = b""
        while b":" not in received:
            received += self._more()
        digits, _, rest = received.partition(b":")
        while len(rest) <= int(digits):
            rest += self._more()
        block, left = rest[: int(digits)], rest[int(digits) + 1 :]
        items = block.split(b"\0")
        assert items[0] == b"CONTENT_LENGTH", items[:4]
        missing = int(items[1]) - len(left)
        while body and missing > 0:
            missing -= len(self._more())

    def _more(self) -> bytes:
        self._wait(select.POLLIN)
        data = self.peer.recv(MEGA)
        if not data:
            raise Left
        return data

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            try:
                sent = self.peer.send(view)
            except BlockingIOError:
                continue
            self.sent += sent
            view = view[sent:]

    def send_for_ever(self, data: bytes, limit: int = 2 << 30) -> None:
        """Two gigabytes, which is for ever; the front must have left long before."""
        while self.sent < limit:
            self.send(data)
        raise AssertionError(f"the front took {self.sent} bytes")

    def drip(self, data: bytes, pause: float = 0.05) -> None:
        """A byte now and then, the same ones again and again."""
        while True:
            for byte in data:
                self.send(bytes([byte]))
                self._wait(0, pause)

    def stall(self) -> None:
        """Do nothing until the front leaves. What it sent may hide that, so once it has answered, that is read."""
        while not self.over.is_set():
            self._wait(0, 0.1)
        self.drain()

    def drain(self) -> None:
        while True:
            self._more()

    def reset(self) -> None:
        """A reset over TCP; on a unix socket only what was not read makes it one."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def _wait(self, events: int, within: float | None = None) -> None:
        """For the events, or the time; raises Left once the front has gone, even if it left bytes behind."""
        poll = select.poll()
        poll.register(self.peer, events | select.POLLRDHUP)
        end = self.deadline if within is None else time.monotonic() + within
        while True:
            ready = poll.poll(max(0, end - time.monotonic()) * 1000)
            found = ready[0][1] if ready else 0
            if found & events & select.POLLIN:
                return
            if found & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
                raise Left
            if found & events:
                return
            if time.monotonic() >= end:
                if within is None:
                    raise TimeoutError("the front neither goes on nor leaves")
                return


Play = Callable[[Talk], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One misbehaviour."""

    name: str
    play: Play
    truth: Truth
    upload: int = 0  # bytes of body that the request has; it is a POST then
    tcp: bool = False  # only a reset tells it, which a unix socket has not
    within: float = 0.0  # that it takes beside the front's timeouts


def says(data: bytes) -> Play:
    """Read the request, answer, close."""

    def play(talk: Talk) -> None:
        talk.read_request()
        talk.send(data)

    return play


def then(data: bytes, end: Callable[[Talk], None]) -> Play:
    """Read the request, send that much, then this."""

    def play(talk: Talk) -> None:
        says(data)(talk)
        end(talk)

    return play


def early(data: bytes, end: Callable[[Talk], None] | None = None) -> Play:
    """Answer when the head is there, whatever the body does."""

    def play(talk: Talk) -> None:
        talk.read_request(body=False)
        talk.send(data)
        if end is not None:
            end(talk)

    return play


def nothing(talk: Talk) -> None:
    """Close at once."""


def endless(data: bytes) -> Play:
    return then(b"", lambda talk: talk.send_for_ever(data))


def shut_and_drain(talk: Talk) -> None:
    talk.peer.shutdown(socket.SHUT_WR)
    talk.drain()


TOO_LARGE: Final = b"Status: 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig\n"
TOO_LARGE_OPEN: Final = b"Status: 413 Content Too Large\r\nContent-Type: text/plain\r\n\r\nbig\n"
HEADERS: Final = b"".join(b"X-Header-%d: value\r\n" % number for number in range(10_000))

TABLE: Final = [
    # -- no answer at all
    Row("close-before-reading", nothing, refused(502)),
    Row("reset-before-reading", Talk.reset, refused(502, 503)),  # it may come before connect() is done: nobody there
    Row("close-after-request", says(b""), refused(502)),
    Row("reset-after-request", then(b"", Talk.reset), refused(502)),
    Row("silence", then(b"", Talk.stall), refused(504)),
    Row("deaf", Talk.stall, refused(504), upload=LARGE),
    Row("reset-within-upload", early(b"", Talk.reset), refused(502), upload=LARGE),
    # -- no whole head
    Row("close-within-head", says(b"Status: 200 OK\r\nContent-Ty"), refused(502)),
    Row("reset-within-head", then(b"Status: 200 OK\r\nContent-Ty", Talk.reset), refused(502)),
    Row("head-without-end", says(OK), refused(502)),
    Row("stall-within-head", then(b"Status: 200 OK\r\nContent-Ty", Talk.stall), refused(504)),
    Row("stall-before-end-of-head", then(OK, Talk.stall), refused(504)),
    Row("head-that-drips", then(b"", lambda talk: talk.drip(b"X-Header: value\r\n")), refused(502, 504)),
    Row("endless-head", endless(b"X-Header: value\r\n" * 4096), refused(502)),
    Row("endless-line", endless(b"x" * MEGA), refused(502)),
    Row("endless-value", then(b"X-Header: ", lambda talk: talk.send_for_ever(b"x" * MEGA)), refused(502)),
    Row("endless-zeros", endless(bytes(MEGA)), refused(502)),
    Row("endless-blank-lines", endless(b"\r\n" * MEGA), refused(502)),
    Row("ten-thousand-headers", says(OK + HEADERS + b"\r\nhello"), answered(200, b"hello")),
    # -- what is no head
    Row("no-head", says(b"hello"), refused(502)),
    Row("page-without-head", says(b"<html>\n<p>hello\n\n</html>\n"), refused(502)),
    Row("blank-line-first", says(b"\r\nhello"), refused(502)),
    Row("newline-first", says(b"\n" + OPEN + b"hello"), refused(502)),
    Row("noise", says(bytes(range(255, -1, -1)) * 16), refused(502)),
    Row("line-without-colon", says(OK + b"hello\r\n\r\nhello"), refused(502)),
    Row("space-before-colon", says(OK + b"X-Header : 1\r\n\r\nhello"), refused(502)),
    Row("folded-header", says(OK + b"X-Header: 1\r\n 2\r\n\r\nhello"), refused(502)),
    Row("header-without-name", says(OK + b": 1\r\n\r\nhello"), refused(502)),
    Row("nul-in-name", says(OK + b"X-He\0ader: 1\r\n\r\nhello"), refused(502)),
    Row("nul-in-value", says(OK + b"X-Header: 1\0002\r\n\r\nhello"), refused(502)),
    Row("nul-and-stall", then(OK + b"X-Header: 1\0002\r\n", Talk.stall), refused(502, 504)),
    Row("bare-cr-in-value", says(OK + b"X-Header: 1\rSet-Cookie: a=b\r\n\r\nhello"), refused(502)),
    Row("bare-cr-as-line-end", says(OK.replace(b"\r\n", b"\r") + b"\rhello"), refused(502)),
    Row("escape-in-value", says(OK + b"X-Header: \x1b[2J\r\n\r\nhello"), refused(502)),
    # -- a bad status
    *(
        Row(f"status-{name}", says(b"Status: " + value + b"\r\nContent-Type: text/plain\r\n\r\nhello"), refused(502))
        for name, value in {
            "of-letters": b"abc",
            "empty": b"",
            "of-two-digits": b"20 OK",
            "of-four-digits": b"2000 OK",
            "signed": b"-200 OK",
            "zero": b"000 None",
            "informational": b"100 Continue",
            "switching-protocols": b"101 Switching Protocols",
        }.items()
    ),
    Row(
        "early-hints-first", says(b"Status: 103 Early Hints\r\nLink: </a>\r\n\r\n" + TEN + b"0123456789"), refused(502)
    ),
    # -- lengths
    Row("longer-than-announced", says(TEN + b"0123456789" + b"HTTP/1.1 200 OK\r\n"), answered(200, b"0123456789")),
    Row(
        "endlessly-longer",
        then(TEN, lambda talk: talk.send_for_ever(b"01234" * MEGA)),
        answered(200, b"01234" * 2),
    ),
    Row("shorter-than-announced", says(TEN + b"01234"), broken(502)),
    Row("no-byte-of-what-was-announced", says(TEN), broken(502)),
    Row("much-shorter-than-announced", says(OK + b"Content-Length: 2000000\r\n\r\n" + bytes(MEGA)), broken(502)),
    *(
        Row(f"length-{name}", says(OK + b"Content-Length: " + value + b"\r\n\r\nhello"), refused(502))
        for name, value in {
            "of-letters": b"abc",
            "empty": b"",
            "negative": b"-5",
            "signed": b"+5",
            "hexadecimal": b"0x5",
            "with-a-list": b"5, 6",
            "beyond-64-bits": b"99999999999999999999999",
        }.items()
    ),
    Row("lengths-that-differ", says(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello1"), refused(502)),
    Row(
        "length-and-chunks",
        says(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"),
        answered(200, b"hello"),
    ),
    Row(
        "chunks",
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        Truth(frozenset({502}), ((200, b"5\r\nhello\r\n0\r\n\r\n"), (200, b"hello"))),
    ),
    # -- an answer that breaks off
    Row("stall-after-head", then(TEN, Talk.stall), broken(502, 504)),
    Row("stall-after-open-head", then(OPEN, Talk.stall), broken(502, 504)),
    Row("stall-within-body", then(TEN + b"01234", Talk.stall), broken(502, 504)),
    Row("stall-within-open-body", then(OPEN + b"01234", Talk.stall), broken(502, 504)),
    Row("reset-after-head", then(TEN, Talk.reset), broken(502)),
    Row("reset-after-open-head", then(OPEN, Talk.reset), broken(502), tcp=True),
    Row("reset-within-body", then(TEN + b"01234", Talk.reset), broken(502)),
    Row("reset-within-open-body", then(OPEN + b"01234" * 100_000, Talk.reset), broken(502), tcp=True),
    # -- an answer while the body is still coming
    Row("early-and-close", early(TOO_LARGE), answered(413, b"big\n"), upload=LARGE),
    Row("early-and-drained", early(TOO_LARGE_OPEN, shut_and_drain), answered(413, b"big\n"), upload=LARGE, within=5),
    Row("early-and-deaf", early(TOO_LARGE, Talk.stall), answered(413, b"big\n"), upload=LARGE),
    Row("early-open-and-close", early(TOO_LARGE_OPEN), answered(413, b"big\n"), upload=LARGE),
    Row("early-and-reset", early(OPEN + b"01234", Talk.reset), broken(502), upload=LARGE, tcp=True),
    Row("early-and-shorter", early(TEN + b"01234"), broken(502), upload=LARGE),
    Row("early-and-stalled", early(TEN + b"01234", Talk.stall), broken(502, 504), upload=LARGE),
]


class HostileServer:
    """Plays ``row`` with each connection, in a thread of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.row = TABLE[0]
        self.connections = 0
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        where = split_address(address)
        if isinstance(where, tuple):
            self._listener = socket.create_server(where, backlog=100)
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(where)
            self._listener.listen(100)
        self._acceptor = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def settle(self, within: float = 10) -> None:
        """Wait until the front has let go of every connection; raise what went wrong in one."""
        deadline = time.monotonic() + within
        self._over.set()
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{self.row.name}: the front holds on to the connection"
        self._over = threading.Event()
        if self._failures:
            raise self._failures.pop()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(peer, self.row))
            thread.start()
            self._threads.append(thread)

    def _talk(self, peer: socket.socket, row: Row) -> None:
        with peer:
            peer.setblocking(False)
            try:
                row.play(Talk(peer, self._over))
            except (Left, OSError) as error:
                if isinstance(error, TimeoutError):
                    self._failures.append(error)
            except BaseException as error:
                self._failures.append(error)


# -- asking ----------------------------------------------------------------------------------------------------------


def ask_http(host: str, port: int, row: Row, *, prefix: str = "", within: float = 20) -> Seen:
    """Make the row's request to a front that speaks HTTP, over a connection of its own."""
    method = "POST" if row.upload else "GET"
    head = f"{method} {prefix}/hostile/{row.name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    if row.upload:
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {row.upload}\r\n"
    began = time.monotonic()
    was_reset = False
    try:
        raw = raw_exchange(f"{host}:{port}", head.encode() + b"\r\n" + bytes(row.upload), within=within)
    except Reset as reset:
        raw, was_reset = reset.received, True
    status, body, whole = read_http(raw, was_reset)
    return Seen(status, body, whole, time.monotonic() - began)


def read_http(raw: bytes, was_reset: bool) -> tuple[int, bytes, bool]:
    """Status, body, and whether it is whole, of an answer that a connection ended with."""
    head, end, rest = raw.partition(b"\r\n\r\n")
    while end and head.startswith(b"HTTP/1.1 1"):
        head, end, rest = rest.partition(b"\r\n\r\n")
    if not end or not head.startswith(b"HTTP/1.1 "):
        return 0, raw, False
    status = int(head[9:12])
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if headers.get(b"transfer-encoding") == b"chunked":
        return status, *_unchunk(rest)
    if b"content-length" in headers:
        length = int(headers[b"content-length"])
        return status, rest[:length], len(rest) >= length
    return status, rest, not was_reset


def _unchunk(data: bytes) -> tuple[bytes, bool]:
    body = b""
    with contextlib.suppress(ValueError):
        while data:
            size, _, data = data.partition(b"\r\n")
            length = int(size, 16)
            body += data[:length]
            if not length:
                return body, data.startswith(b"\r\n")
            data = data[length + 2 :]
    return body, False
