"""Turns settings into a running server; the only place that knows which class stands behind which word.

Imports `supervisor`, `workers`, `apps`, `net`, `gateway` (on use) and the settings.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scgi import log as scgi_log
from scgi.apps.handler import HandlerAdapter
from scgi.apps.load import (
    Application,
    check_application,
    load_application,
    prepare_path,
    refuse_here,
    refuse_unrunnable,
)  # fmt: skip
from scgi.apps.paths import parse_mount
from scgi.apps.wsgi import WsgiAdapter
from scgi.config.settings import Settings
from scgi.errors import ConfigError, ListenError, MissingExtra
from scgi.net.address import Address
from scgi.net.listen import Listener, inherited_listeners, open_listener
from scgi.net.stream import Patience
from scgi.protocol.request import Limits
from scgi.status.scoreboard import Slot
from scgi.supervisor.bell import Bell, StoppedEarly
from scgi.supervisor.companion import Companion
from scgi.supervisor.doors import Doors
from scgi.supervisor.policy import PoolPolicy
from scgi.supervisor.pool import Pool, PoolPlan
from scgi.workers.blocking import Adapter, WorkerPlan
from scgi.workers.standard import fill_standard_descriptors

log = logging.getLogger("scgi.server")


def serve(app: Any, **settings: Any) -> int:
    """Serve an application until TERM or INT; returns the exit status that the command would have.

    `app` is a WSGI callable, a `SCGIHandler` subclass, or text as on the command line; the keywords are the
    settings' names (`listen`, `max_workers`, …), their values text or what Python has for it. Raises `ConfigError`,
    `AppLoadError`, `ListenError`, `MissingExtra`.
    """
    refuse_here("scgi.serve()")
    return run_server(Settings.from_keywords(app=app, **settings))


def run_server(settings: Settings) -> int:
    """Run, or with `check` only try, what the settings say; returns the exit status."""
    fill_standard_descriptors()
    start_log(settings)
    with contextlib.ExitStack() as opened, contextlib.suppress(StoppedEarly):
        bell = opened.enter_context(Bell())
        listeners = open_listeners(settings)
        for listener in listeners:
            opened.callback(listener.close)
        companions = []
        if settings.http is not None:
            front = open_listener(settings.http, backlog=settings.backlog)
            opened.callback(front.close)
            companions.append(_http_front(front, listeners, settings))
        with bell.while_loading(Doors(listeners).somebody_waits):
            application = _load(settings)
        plan = PoolPlan(
            worker=_worker_plan(application, settings),
            policy=PoolPolicy(settings.min_workers, settings.max_workers, settings.idle_timeout),
            graceful_timeout=settings.graceful_timeout,
            companions=companions,
        )
        if settings.check:
            log.info("%s loads as %s, and every address can be bound", application.name, application.interface)
            return 0
        opened.enter_context(_pid_file(settings.pid_file))
        _announce(application, listeners, settings)
        return int(Pool(plan, listeners, bell).run())
    log.info("stopped while the application was being loaded")
    return 0


def start_log(settings: Settings) -> None:
    """Set up logging. Raises `ConfigError` if the file cannot be opened."""
    try:
        scgi_log.setup(settings.log_level, settings.log_format, settings.log_file)
    except OSError as error:
        raise ConfigError(
            f"log-file: cannot open {settings.log_file}: {error.strerror}", source=settings.source("log_file")
        ) from None


def open_listeners(settings: Settings) -> list[Listener]:
    """Open all addresses, or none. Raises `ListenError`."""
    listeners: list[Listener] = []
    try:
        for address in settings.listen:
            if address.kind != "systemd":
                listeners.append(open_listener(address, backlog=settings.backlog, socket_mode=settings.socket_mode))
            elif inherited := inherited_listeners(settings.backlog):
                listeners += inherited
            else:
                raise ListenError("listen: systemd has handed over no sockets (LISTEN_PID, LISTEN_FDS)")
    except ListenError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _load(settings: Settings) -> Application:
    prepare_path(settings.chdir, settings.pythonpath, settings.env)
    if isinstance(settings.app, str):
        application = load_application(settings.app, settings.interface)
    else:
        application = check_application(settings.app, settings.interface)
    if application.interface == "handler":
        refuse_unrunnable(application.target, settings.threads)
    return application


def _worker_plan(application: Application, settings: Settings) -> WorkerPlan:
    patience = Patience(head=settings.header_timeout, body=settings.body_timeout)
    make_adapter: Callable[[int], Adapter]
    if application.interface == "handler":

        def make_adapter(lifeline: int) -> Adapter:
            return HandlerAdapter(application.target(lifeline), patience).answer
    else:
        wsgi = WsgiAdapter(
            application.target,
            mount=None if settings.mount is None else parse_mount(settings.mount),
            multithread=settings.threads > 1,
            patience=patience,
        )

        def make_adapter(lifeline: int) -> Adapter:
            return wsgi.answer

    return WorkerPlan(
        make_adapter,
        threads=settings.threads,
        limits=Limits(settings.max_header, settings.max_variables, settings.max_body),
        require_scgi=settings.require_scgi,
        patience=patience,
        access=_access(settings),
    )


def _access(settings: Settings) -> Callable[[Slot, float], None] | None:
    if not settings.access_log:
        return None
    try:
        write = scgi_log.open_access_log(settings.access_log)
    except OSError as error:
        raise ConfigError(
            f"access-log: cannot open {settings.access_log}: {error.strerror}", source=settings.source("access_log")
        ) from None

    def access(slot: Slot, seconds: float) -> None:
        write(scgi_log.access_line(slot.variables, slot.status, slot.sent, seconds, slot.request_id()))

    return access


def _http_front(front: Listener, listeners: list[Listener], settings: Settings) -> Companion:
    """The embedded HTTP server as a process of its own. Raises `MissingExtra` before anything is started."""
    if importlib.util.find_spec("uvicorn") is None:
        raise MissingExtra("http", "--http")
    upstream = _reachable(listeners[0])

    def run() -> int:
        from scgi.gateway import run_gateway

        for listener in listeners:
            listener.sock.close()
        run_gateway(
            front.sock,
            upstream,
            graceful_timeout=settings.graceful_timeout,
            head_timeout=settings.header_timeout,
            spool_limit=settings.max_body,
        )
        return 0

    return Companion(f"the HTTP front at http://{front.address}/", run, (front.sock,))


def _reachable(listener: Listener) -> Address:
    """Where we ourselves can connect to a listener: the loopback, if it listens everywhere."""
    address = listener.address
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(address.kind, anywhere.get(address.host, address.host), address.port, address.path)


def _announce(application: Application, listeners: list[Listener], settings: Settings) -> None:
    log.info(
        "serving %s (%s) on %s with %d to %d workers%s",
        application.name,
        application.interface,
        ", ".join(str(listener.address) for listener in listeners),
        settings.min_workers,
        settings.max_workers,
        f" of {settings.threads} threads" if settings.threads > 1 else "",
    )
    for listener in listeners:
        warn_of_exposure(listener)
    with contextlib.suppress(OSError, ValueError):
        cap = int(Path("/proc/sys/net/core/somaxconn").read_text())
        if cap < settings.backlog:
            log.info("the kernel caps the backlog of %d at %d (net.core.somaxconn)", settings.backlog, cap)


def warn_of_exposure(listener: Listener) -> None:
    """Say what others could do with this listener that its owner may not have thought of."""
    address = listener.address
    if not address.is_loopback:
        log.warning("%s can be reached by other machines: let only the web server's through the firewall", address)
    if listener.sock.family == socket.AF_UNIX and address.path.startswith("/"):
        folder = Path(address.path).parent
        with contextlib.suppress(OSError):
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                log.warning("anybody can replace %s: its folder is writable by all", address)


@contextlib.contextmanager
def _pid_file(path: str) -> Iterator[None]:
    """Our process id in a file, for as long as we run."""
    if not path:
        yield
        return
    file = Path(path)
    pid = f"{os.getpid()}\n"
    try:
        file.write_text(pid)
    except OSError as error:
        raise ConfigError(f"pid-file: cannot write {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if file.read_text() == pid:
                file.unlink()
