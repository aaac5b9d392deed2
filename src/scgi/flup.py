"""flup's `WSGIServer`, so that a flup script changes one import; nothing inside imports this file.

::

    from scgi.flup import WSGIServer    # was: from flup.server.scgi_fork import WSGIServer
    WSGIServer(app, bindAddress=("localhost", 4000)).run()

A pool in the script's own process, as with `scgi.scgi_server`, with flup's words.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from scgi.config.fork import require_fork

require_fork("scgi.flup")

from scgi import log as scgi_log
from scgi.apps.load import check_application, refuse_here
from scgi.apps.paths import parse_mount
from scgi.apps.wsgi import WsgiAdapter
from scgi.config.build import warn_of_exposure
from scgi.errors import ConfigError
from scgi.net.address import Address
from scgi.net.allow import AllowList
from scgi.net.listen import open_listener
from scgi.supervisor.bell import Bell
from scgi.supervisor.plan import PoolPlan
from scgi.supervisor.policy import PoolPolicy
from scgi.supervisor.pool import Pool
from scgi.supervisor.recycle import Ration
from scgi.workers.blocking import WorkerPlan
from scgi.workers.standard import fill_standard_descriptors

__all__ = ["WSGIServer"]

log = logging.getLogger("scgi.server")

_THREADS: Final = 10
_WITHOUT_EFFECT: Final = {
    "debug": "tracebacks go to the log, never to a browser",
    "minSpare": "a child is started when a request finds none free",
    "maxSpare": "children that are not needed end by themselves",
    "timeout": "scgi serve --timeout has a limit for requests",
    "sockTimeout": "slow peers hold no child",
    "jobClass": "jobs are ours",
    "jobArgs": "jobs are ours",
}


class WSGIServer:
    """Answers SCGI requests with a WSGI application, as the servers of flup's `scgi`, `scgi_fork` and `scgi_single`.

    Requests are answered by processes, at most `maxChildren`; with `multithreaded=True` or `maxThreads`, by the threads
    of one. `environ` is added to each request's. `allowedServers` are IP addresses or networks; None is anybody who can
    connect. Raises `ConfigError` for an argument that flup does not have.
    """

    def __init__(
        self,
        application: Callable[..., Iterable[bytes]],
        scriptName: str | None = None,
        environ: Mapping[str, Any] | None = None,
        multithreaded: bool = False,
        multiprocess: bool = True,
        bindAddress: str | tuple[str, int] = ("localhost", 4000),
        umask: int | None = None,
        allowedServers: Iterable[str] | None = None,
        loggingLevel: int = logging.INFO,
        debug: bool = False,
        *,
        maxChildren: int = 50,
        maxRequests: int = 0,
        maxThreads: int = 0,
        **others: Any,
    ) -> None:
        if unknown := sorted(others.keys() - _WITHOUT_EFFECT.keys()):
            raise ConfigError(f"WSGIServer: {unknown[0]} is not an argument of flup's SCGI servers")
        self.application = application
        self.mount = None if scriptName is None else parse_mount(scriptName)
        self.environ = dict(environ or {})
        self.threads = (maxThreads or _THREADS) if multithreaded or maxThreads else 1
        self.children = 1 if self.threads > 1 else maxChildren
        self.requests = maxRequests
        self.level = loggingLevel
        self.allow = AllowList(tuple(allowedServers)) if allowedServers is not None else None
        self.mode = 0o666 & ~umask if umask is not None else 0o660
        if isinstance(bindAddress, str):
            self.address = Address("unix", path=bindAddress)
        else:
            self.address = Address("tcp", bindAddress[0] or "0.0.0.0", bindAddress[1])
        self._ignored = sorted(others) + (["debug"] if debug else [])

    def run(self) -> bool:
        """Serve until a signal: True after HUP, which asks for a new start, False after TERM and INT.

        What has arrived is answered first. Raises `ListenError`, `AppLoadError`.
        """
        fill_standard_descriptors()
        refuse_here("WSGIServer.run()")
        check_application(self.application, "wsgi")
        if not logging.getLogger("scgi").hasHandlers():  # the program has not set up logging for us
            scgi_log.setup(logging.getLevelName(self.level).lower())
        for name in self._ignored:
            log.warning("WSGIServer: %s has no effect here: %s", name, _WITHOUT_EFFECT[name])
        if os.geteuid() == 0:
            log.warning("the application runs as root; scgi serve --user gives it a user of its own")
        wsgi = WsgiAdapter(self.application, mount=self.mount, multithread=self.threads > 1)
        worker = WorkerPlan(
            lambda lifeline: wsgi.answer,
            base={**wsgi.base, **self.environ},
            threads=self.threads,
            require_scgi=False,
            allow=self.allow,
        )
        plan = PoolPlan(worker, PoolPolicy(1, self.children), ration=Ration(self.requests))
        listener = open_listener(self.address, socket_mode=self.mode)
        log.info("serving on %s with up to %d children of %d threads", listener.address, self.children, self.threads)
        warn_of_exposure(listener)
        try:
            with _HangUp() as bell:
                Pool(plan, [listener], bell).run()
                return bell.hung_up
        finally:
            listener.close()


class _HangUp(Bell):
    """HUP is heard as TERM, and remembered."""

    hung_up = False

    def hear(self) -> bytes:
        heard = super().hear()
        self.hung_up = self.hung_up or signal.SIGHUP in heard
        return heard.replace(bytes([signal.SIGHUP]), bytes([signal.SIGTERM]))
