"""Runs the gateway under uvicorn, the only place that knows it; an optional extra, imported on use.

uvicorn's own log is kept quiet: the gateway reports what went wrong, in the project's words. May import
net, protocol and errors.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

from scgi.errors import MissingExtra
from scgi.gateway.relay import Gateway
from scgi.net.address import Address
from scgi.protocol.request import DEFAULT_LIMITS

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HURRY = 0.2  # seconds for what is in flight when a person at a terminal waits for the end


def run_gateway(
    sock: socket.socket,
    upstream: Address,
    *,
    connect_timeout: float = 5.0,
    read_timeout: float = 60.0,
    spool_limit: int = DEFAULT_LIMITS.body,
    graceful_timeout: float = 30.0,
    log_level: str = "critical",
) -> None:
    """Serve HTTP on ``sock``, which is bound, until SIGTERM or SIGINT; the socket is then closed.

    SIGTERM lets requests finish, at most ``graceful_timeout`` seconds; SIGINT, or a second signal, hardly.
    ``log_level`` is uvicorn's. Raises MissingExtra without uvicorn.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("http", "the HTTP front") from None

    class Front(uvicorn.Server):
        """Returns after a signal, where uvicorn would raise it anew."""

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
                self.config.timeout_graceful_shutdown = _HURRY  # type: ignore[assignment]
            self.should_exit = True

    config = uvicorn.Config(
        Gateway(
            upstream,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            spool_limit=spool_limit,
        ),
        loop="asyncio",
        http="h11",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level=log_level,
        access_log=False,
        proxy_headers=False,  # REMOTE_ADDR is who is connected, never what a header says
        server_header=False,
        date_header=False,  # the gateway adds one where the application gave none
        h11_max_incomplete_event_size=65536,
        timeout_graceful_shutdown=graceful_timeout,  # type: ignore[arg-type]  # floats work
    )
    Front(config).run([sock])
