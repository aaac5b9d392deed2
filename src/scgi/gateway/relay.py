"""The gateway as an ASGI application: moves one request to the SCGI server and its answer back.

Two things run at once: the body goes up as it comes (then the client is watched, to see it leave), and
the answer comes down as it comes. Neither waits for the other, so an answer given before the whole body
was read arrives. Sockets are used bare (``loop.sock_*``), not as asyncio streams: a stream whose writing
side fails throws away what had been received, and that is where an early answer is.

May import client, net, protocol, errors.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from scgi.client.exchange import Answer, Event, Exchange, Finished, Piece, content_length
from scgi.errors import ConfigError, MalformedResponse
from scgi.gateway.request import BadRequest, Request, named_by_connection, read_request, stays_open
from scgi.net.address import Address
from scgi.protocol.request import DEFAULT_LIMITS
from scgi.protocol.response import HOP_BY_HOP

log = logging.getLogger("scgi.gateway")

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CHUNK: Final = 65536
_SPOOL_IN_MEMORY: Final = 1 << 20
_LINGER: Final = 5.0  # seconds for a client that is still sending to read the answer


class Gateway:
    """Answers HTTP requests by asking the SCGI server at ``upstream``.

    ``connect_timeout`` is for reaching the server; ``read_timeout`` for every time in which neither it
    nor the client moves a byte, and for the head of an answer, from its first byte to its last. A chunked
    body is collected first, because SCGI announces the length; more than ``spool_limit`` bytes of it are
    refused.
    """

    def __init__(
        self,
        upstream: Address,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        spool_limit: int = DEFAULT_LIMITS.body,
    ) -> None:
        if upstream.kind == "systemd":
            raise ConfigError("upstream: expected HOST:PORT or unix:PATH, found 'systemd'")
        self.upstream = upstream
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.spool_limit = spool_limit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway speaks HTTP, not {scope['type']}")
        await _Visit(self, scope, receive, send).run()


class _Refused(Exception):
    """An answer of the gateway's own: ``sentence`` is for the client, ``cause`` for the log."""

    def __init__(self, status: int, sentence: str, cause: object = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.cause = cause


class _ClientGone(Exception):
    """Nobody is there to read an answer."""


class _Visit:
    """One request on its way."""

    def __init__(self, gateway: Gateway, scope: Message, receive: Receive, send: Send) -> None:
        self.gateway = gateway
        self.scope = scope
        self.receive = receive
        self.send = send
        self.loop = asyncio.get_running_loop()
        self.moved = 0.0  # when a byte last moved between us and the server; of an answer's head, the first
        self.heard = False  # whether that has come
        self.was_reset = False  # sending to the server found that out, and receiving is not told again
        self.asked = False  # whether the body was asked for (a client may wait for "100 Continue")
        self.body_received = False
        self.waits_for_client = False
        self.client_gone = False
        self.stalled = False  # the client sends no more of its body, and we gave up waiting
        self.started = False  # whether the answer's head has gone to the client

    # -- from beginning to end ------------------------------------------------------------------

    async def run(self) -> None:
        """Answer, whatever happens. Returning without having finished has the connection cut."""
        try:
            await self._relay()
            await self._finish(closing=not stays_open(self.scope))
        except _ClientGone:
            log.debug("%s: the client left", self._name())
        except _Refused as refused:
            await self._refuse(refused)
        except asyncio.CancelledError:  # the grace period is over
            await self._refuse(_Refused(503, "The server is being stopped."))
        except Exception:
            log.exception("%s: error in the gateway", self._name())
            await self._refuse(_Refused(500, "The gateway made a mistake."))

    async def _relay(self) -> None:
        try:
            request = read_request(self.scope)
        except BadRequest as error:
            raise _Refused(error.status, str(error)) from None
        if request.length is None:
            with SpooledTemporaryFile(max_size=_SPOOL_IN_MEMORY) as spool:
                await self._exchange(request, await self._collect(spool), b"", spool)
        else:
            # With the first piece in hand, a small request goes out whole in one write, and a client
            # that sends a head and then nothing costs the server nothing.
            first = await self._take_in_time() if request.length else b""
            await self._exchange(request, request.length, first, None)

    async def _exchange(self, request: Request, length: int, first: bytes, spool: IO[bytes] | None) -> None:
        exchange = Exchange(request.variables, length, head_request=self.scope["method"] == "HEAD")
        sock = await self._connect()
        up = asyncio.create_task(self._up(exchange, sock, first, spool))
        try:
            await self._down(exchange, sock)
        finally:
            up.cancel()
            try:
                await asyncio.wait([up])  # before closing: the loop must have let go of the descriptor
            finally:
                sock.close()

    async def _connect(self) -> socket.socket:
        try:
            async with asyncio.timeout(self.gateway.connect_timeout):
                return await connect(self.gateway.upstream)
        except TimeoutError:
            raise _Refused(504, "The application server accepts no connection.", "timed out") from None
        except OSError as error:
            raise _Refused(503, "The application server cannot be reached.", error) from None

    # -- the request's way up -------------------------------------------------------------------

    async def _up(self, exchange: Exchange, sock: socket.socket, first: bytes, spool: IO[bytes] | None) -> None:
        """Send the request; then, or when the server stops reading, watch for the client leaving."""
        try:
            await self._send_up(sock, exchange.request_head + exchange.body(first))
            while exchange.body_left:
                data = spool.read(_CHUNK) if spool else await self._take()
                await self._send_up(sock, exchange.body(data))
            while True:
                await self._take()
        except _ClientGone:
            self.client_gone = True
            shut(sock)

    async def _send_up(self, sock: socket.socket, data: bytes) -> None:
        try:
            await self.loop.sock_sendall(sock, data)
        except OSError as error:
            # The server reads no more. Its answer may be there already; the rest of the body is of no use.
            self.was_reset = isinstance(error, ConnectionResetError)
            while True:
                await self._take()
        self.moved = self.loop.time()

    async def _collect(self, spool: IO[bytes]) -> int:
        """Take the whole of a chunked body, which says its length only by ending."""
        length = 0
        while not self.body_received:
            data = await self._take_in_time()
            length += len(data)
            if length > self.gateway.spool_limit:
                raise _Refused(413, f"The limit is {self.gateway.spool_limit} bytes.")
            try:
                spool.write(data)
            except OSError as error:
                raise _Refused(503, "There is no room for the request body.", error) from None
        spool.seek(0)
        return length

    async def _take(self) -> bytes:
        """The next piece of the request's body. Raises _ClientGone, also once there is no more of it."""
        self.asked = self.waits_for_client = True
        message = await self.receive()
        self.waits_for_client = False
        if message["type"] == "http.disconnect":
            raise _ClientGone
        self.body_received = self.body_received or not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return data

    async def _take_in_time(self) -> bytes:
        try:
            async with asyncio.timeout(self.gateway.read_timeout):
                return await self._take()
        except TimeoutError:
            raise _Refused(408, "The request body did not come in time.") from None

    # -- the answer's way down ------------------------------------------------------------------

    async def _down(self, exchange: Exchange, sock: socket.socket) -> None:
        while not exchange.finished:
            try:
                events = await self._next(exchange, sock)
            except (MalformedResponse, OSError) as error:
                if self.client_gone:
                    raise _ClientGone from None
                raise _Refused(502, "The application server's answer is not usable.", error) from None
            for event in events:
                match event:
                    case Answer():
                        await self._start(event.status, answer_headers(event))
                    case Piece():
                        await self.send({"type": "http.response.body", "body": event.data, "more_body": True})
                    case Finished():
                        if self.client_gone:  # the end of file is our own doing
                            raise _ClientGone

    async def _next(self, exchange: Exchange, sock: socket.socket) -> list[Event]:
        if exchange.answer is not None or not self.heard:  # a head that drips does not stop the clock
            self.moved = self.loop.time()
        try:
            data = await self._read(sock)
        except ConnectionResetError:
            return exchange.reset()
        if not self.heard:
            self.heard, self.moved = True, self.loop.time()
        if data:
            return exchange.feed(data)
        return exchange.reset() if self.was_reset else exchange.eof()

    async def _read(self, sock: socket.socket) -> bytes:
        """What comes next from the server. The clock stands while the body goes up."""
        while True:
            timeout_at = self.moved + self.gateway.read_timeout
            try:
                async with asyncio.timeout_at(timeout_at):
                    return await self.loop.sock_recv(sock, _CHUNK)
            except TimeoutError:
                if self.moved + self.gateway.read_timeout > timeout_at:
                    continue
                if self.waits_for_client and not self.body_received:
                    raise _Refused(408, "The request body did not come in time.") from None
                raise _Refused(504, "The application server did not answer in time.", "timed out") from None

    # -- what the client gets -------------------------------------------------------------------

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not any(name == b"date" for name, _ in headers):
            headers.append((b"date", formatdate(usegmt=True).encode()))
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _finish(self, *, closing: bool) -> None:
        """End the answer. Where that closes the connection, what the client still sends is read first:
        closing on unread bytes is a reset, and that can overtake the answer."""
        expects = any(name == b"expect" for name, _ in self.scope["headers"])
        sending = not (self.body_received or self.stalled) and (self.asked or not expects)
        if closing and sending:
            try:
                async with asyncio.timeout(_LINGER):
                    while not self.body_received:
                        await self._take()
            except (TimeoutError, _ClientGone):
                pass
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _refuse(self, refused: _Refused) -> None:
        if refused.cause is not None:
            log.error(
                "%s: %d from %s: %s%s",
                self._name(),
                refused.status,
                self.gateway.upstream,
                refused.cause or type(refused.cause).__name__,
                " (the answer had begun: cut off)" if self.started else "",
            )
        if self.started:
            return
        page = f"{refused.status} {HTTPStatus(refused.status).phrase}\n{refused.sentence}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(page)).encode()),
        ]
        closing = refused.status in (400, 408, 501)  # where the next request begins is anybody's guess
        if closing:
            headers.append((b"connection", b"close"))
        self.stalled = refused.status == 408
        await self._start(refused.status, headers)
        await self.send({"type": "http.response.body", "body": page, "more_body": True})
        await self._finish(closing=closing or not stays_open(self.scope))

    def _name(self) -> str:
        return ascii(f"{self.scope['method']} {self.scope['path']}"[:200])[1:-1]


def answer_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The headers for the client: those of the connection between us and the server left out."""
    named = named_by_connection(value for name, value in answer.headers if name.lower() == "connection")
    dropped = HOP_BY_HOP | named | {"content-length"}
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers
        if name.lower() not in dropped
    ]
    announced = content_length(answer.headers)
    if announced is not None and answer.status != 204:
        headers.append((b"content-length", str(announced).encode()))
    return headers


async def connect(address: Address) -> socket.socket:
    """A connected, non-blocking socket. Raises OSError."""
    if address.kind == "unix":
        return await _connect_unix(address.path)
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("the name has no address")
    for family, kind, proto, _, where in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, where)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise failure


async def _connect_unix(path: str) -> socket.socket:
    """A unix socket whose queue is full says EAGAIN at once, and asyncio takes that for "in progress"."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            result = sock.connect_ex(path)
            if result == 0:
                return sock
            if result != errno.EAGAIN:
                raise OSError(result, errno.errorcode[result])
            await asyncio.sleep(0.01)
    except BaseException:
        sock.close()
        raise


def shut(sock: socket.socket) -> None:
    """Tell the server that nobody listens any more; the reading side wakes by it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
