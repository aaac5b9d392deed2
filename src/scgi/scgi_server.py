"""The reference API: `SCGIServer` and `SCGIHandler`; as a script, a test server that shows a request's variables.

::

    python scgi_server.py [PORT]

A thin face over the same pool that `scgi serve` runs; nothing inside imports it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Final

if __name__ == "__main__" and not __package__:
    # Run from its own folder, that folder is first on the path: our own module names must not hide others.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from scgi.config.fork import require_fork

require_fork("scgi.scgi_server")

from scgi import log as scgi_log
from scgi.apps.handler import HandlerAdapter, SCGIHandler
from scgi.apps.load import refuse_here, refuse_unrunnable
from scgi.config.build import warn_of_exposure
from scgi.errors import ConfigError, ScgiError
from scgi.net.address import Address
from scgi.net.listen import Listener, adopt, inherited_listeners, open_listener
from scgi.supervisor.bell import Bell
from scgi.supervisor.plan import PoolPlan
from scgi.supervisor.policy import PoolPolicy
from scgi.supervisor.pool import Pool
from scgi.util import log, ns_read_size, ns_reads, parse_env, read_env
from scgi.workers.blocking import Adapter, WorkerPlan
from scgi.workers.standard import fill_standard_descriptors

# The reference kept those of `scgi.util` here before its version 2.
__all__ = ["SCGIHandler", "SCGIServer", "log", "main", "ns_read_size", "ns_reads", "parse_env", "read_env"]

# Methods of the reference's server that were its machinery: an override would silently do nothing here.
_MACHINERY: Final = ("spawn_child", "delegate_request", "get_child", "reap_children", "do_stop", "do_restart")


class SCGIServer:
    """Answers SCGI requests with objects of `handler_class`, one per child process, at most `max_children` of them.

    Children are started when a request finds none free, and replaced when they end. `handler_class` may be anything
    that makes a `SCGIHandler` when it is called with a descriptor. `host` "" means every address of this machine, as
    in the reference; the default is the loopback alone.
    """

    DEFAULT_PORT = 4000

    def __init__(
        self,
        handler_class: Callable[[int], SCGIHandler] = SCGIHandler,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        max_children: int = 5,
    ) -> None:
        self.handler_class = handler_class
        self.host = host
        self.port = port
        self.max_children = max_children

    def spawn_child(self, conn: socket.socket | None = None) -> None:
        """The reference's way to start a child; here the pool does it when one is needed."""
        raise ConfigError("SCGIServer.spawn_child() cannot be called or replaced: the pool starts children itself")

    def get_listening_socket(self) -> socket.socket:
        """The socket that `serve` listens on, unless systemd hands one over; override it for another kind.

        Raises `ListenError` (an OSError) if the address cannot be had.
        """
        return open_listener(Address("tcp", self.host or "0.0.0.0", self.port)).sock

    def serve(self) -> None:
        """Listen, or take the sockets that systemd hands over, and serve until SIGTERM or SIGINT."""
        self._check("SCGIServer.serve()")
        self._run(inherited_listeners() or [adopt(self.get_listening_socket(), owned=True)])

    def serve_on_socket(self, s: socket.socket) -> None:
        """Serve on a socket that is bound already; it stays open and as it is for whoever else uses it."""
        self._check("SCGIServer.serve_on_socket()")
        self._run([adopt(s, owned=False)])

    def _check(self, call: str) -> None:
        """Before anything listens: what could not run as its author means it is refused."""
        fill_standard_descriptors()
        refuse_here(call)
        refuse_unrunnable(self.handler_class)
        for name in _MACHINERY:
            if getattr(type(self), name, None) is not getattr(SCGIServer, name, None):
                raise ConfigError(
                    f"{type(self).__name__} overrides {name}(): here the pool starts and ends children itself; "
                    "do what each child needs in the handler's __init__() instead"
                )
        if self.max_children < 1:
            raise ConfigError(f"max_children: expected at least 1, got {self.max_children}")

    def _run(self, listeners: list[Listener]) -> None:
        handler_class = self.handler_class

        def make_adapter(lifeline: int) -> Adapter:
            handler = handler_class(lifeline)
            refuse_unrunnable(type(handler))
            return HandlerAdapter(handler).answer

        if not logging.getLogger("scgi").hasHandlers():  # the program has not set up logging for us
            scgi_log.setup("info")
        plan = PoolPlan(WorkerPlan(make_adapter, require_scgi=False), PoolPolicy(0, self.max_children))
        if os.geteuid() == 0:
            logging.getLogger("scgi.server").warning(
                "the application runs as root; scgi serve --user gives it a user of its own"
            )
        for listener in listeners:
            logging.getLogger("scgi.server").info(
                "serving %s on %s with up to %d children",
                getattr(handler_class, "__name__", handler_class), listener.address, self.max_children,
            )  # fmt: skip
            warn_of_exposure(listener)
        try:
            with Bell() as bell:
                Pool(plan, listeners, bell).run()
        finally:
            for listener in listeners:
                if listener.owned:
                    listener.close()


def main() -> None:
    """`python scgi_server.py [PORT]`: the default handler, which shows the request's variables."""
    arguments = sys.argv[1:]
    if len(arguments) > 1 or not all(re.fullmatch("[0-9]{1,5}", word) and int(word) < 65536 for word in arguments):
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} [PORT]  (a number up to 65535, by default 4000)")
    try:
        SCGIServer(port=int(arguments[0]) if arguments else SCGIServer.DEFAULT_PORT).serve()
    except ScgiError as error:
        sys.exit(f"scgi: {error}")


if __name__ == "__main__":
    main()
