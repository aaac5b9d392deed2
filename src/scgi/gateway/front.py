"""uvicorn as the gateway needs it: how it begins, how long it waits for a request's head, and how it ends.

Imported on use, since uvicorn is an optional extra. May import net.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from email.utils import formatdate
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from scgi.net.closing import refuse_new
from scgi.net.queue import queue_length

_HURRY: Final = 0.2  # seconds for what is in flight when a person at a terminal waits for the end
_TAKE_IN: Final = 0.5  # seconds at the end for those who wait in the queue, or have not yet said what they want
_LOOK: Final = 0.02
_TURNS: Final = 10  # of the loop, until an accepted connection is known and what it had sent has been read
_SO_DETACH_FILTER: Final = 27
_TOO_LATE_HEAD: Final = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\ndate: %s\r\n\r\n"
)
_TOO_LATE: Final = b"408 Request Timeout\nThe request's head did not come in time.\n"


class Connection(H11Protocol):
    """Waits `head_timeout` for a client wherever neither the gateway nor uvicorn has a clock running."""

    def __init__(self, *, head_timeout: float, **given: Any) -> None:
        super().__init__(**given)
        self.head_timeout = head_timeout
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()  # a request is being answered: the gateway has its own limits
            return
        if not self._head_begun():
            self._wait_no_more()  # the rest of a body nobody wants: as long as it comes
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self._head_begun():  # that of the next request
            self._unset_keepalive_if_required()
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _head_begun(self) -> bool:
        return bool(self.conn.trailing_data[0])

    def _wait(self) -> None:
        if self._patience is None and not self.transport.is_closing():
            self._patience = self.loop.call_later(self.head_timeout, self._give_up)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.transport.is_closing():
            return
        if self._head_begun():
            self.transport.write(_TOO_LATE_HEAD % (len(_TOO_LATE), formatdate(usegmt=True).encode()) + _TOO_LATE)
        self.transport.close()


class Front(uvicorn.Server):
    """Returns after a signal, where uvicorn would raise it anew, and lets nobody down who is there at SIGTERM."""

    _hurried = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()  # from Python 3.12 on, their end is waited for
        elif sig == signal.SIGINT:
            self._hurried = True
            self.config.timeout_graceful_shutdown = _HURRY  # type: ignore[assignment]
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        STATUS_PHRASES.update(dict.fromkeys(range(600, 1000), b""))  # h11 sends them, uvicorn knows no names for them
        for sock in sockets or []:
            _admit(sock)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End it. uvicorn closes its listener whatever waits there, and connections that have not yet been read."""
        if not self._hurried:
            await self._take_in(sockets or [])
        await super().shutdown(sockets)

    async def _take_in(self, sockets: list[socket.socket]) -> None:
        end = asyncio.get_running_loop().time() + _TAKE_IN
        for sock in sockets:
            _refuse(sock)
        while not self.force_exit:
            queued = any(queue_length(sock) for sock in sockets)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            unheard = any(connection.cycle is None for connection in self.server_state.connections)  # type: ignore[union-attr]
            if not (queued or unheard) or asyncio.get_running_loop().time() >= end:
                return
            await asyncio.sleep(_LOOK)


def _refuse(sock: socket.socket) -> None:
    """No new connections, until a successor starts: the server that lent us this socket may replace us."""
    if sock.family == socket.AF_UNIX:
        sock.listen(0)  # `shutdown` could not be taken back
    else:
        refuse_new(sock)


def _admit(sock: socket.socket) -> None:
    """Undo what a predecessor's `_refuse` did, as far as `listen` does not."""
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # there is none
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
