"""Runs the gateway under uvicorn, an optional extra, imported on use; only here and in `front` is it known.

uvicorn's own log is kept quiet: the gateway reports what went wrong, in the project's words. May import
net, protocol and errors.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable

from scgi.errors import MissingExtra
from scgi.gateway.relay import Gateway
from scgi.net.address import Address
from scgi.protocol.request import DEFAULT_LIMITS


def run_gateway(
    sock: socket.socket,
    upstream: Address,
    *,
    head_timeout: float = 10.0,
    connect_timeout: float = 5.0,
    read_timeout: float = 60.0,
    spool_limit: int = DEFAULT_LIMITS.body,
    graceful_timeout: float = 30.0,
    log_level: str = "critical",
    imported: Callable[[], None] | None = None,
) -> None:
    """Serve HTTP on ``sock``, which is bound, until SIGTERM or SIGINT; the socket is then closed.

    SIGTERM lets requests finish, at most ``graceful_timeout`` seconds, those of connections that wait in the
    listening queue too; SIGINT, or a second signal, hardly. A client has ``head_timeout`` seconds for the head of a
    request. ``log_level`` is uvicorn's. ``imported`` is called when all modules are, before anything is read:
    privileges can drop there. Raises MissingExtra without uvicorn.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("http", "the HTTP front") from None
    from scgi.gateway.front import Connection, Front

    config = uvicorn.Config(
        Gateway(
            upstream,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            spool_limit=spool_limit,
        ),
        loop="asyncio",
        http=functools.partial(Connection, head_timeout=head_timeout),  # type: ignore[arg-type]  # is called
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
    if imported is not None:
        import uvicorn.loops.asyncio

        config.load()
        imported()
    Front(config).run([sock])
