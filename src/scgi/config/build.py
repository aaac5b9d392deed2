"""Turns settings into a running server; the only place that knows which class stands behind which word.

Imports `supervisor`, `net`, `gateway` (on use), its neighbour `program` and the settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any, Final

from scgi import log as scgi_log
from scgi.apps.bytecode import cache_settled_sources_only
from scgi.apps.load import refuse_here
from scgi.config import program
from scgi.config.parse import limits
from scgi.config.pidfile import pid_file
from scgi.config.settings import Settings
from scgi.errors import ConfigError, ListenError, MissingExtra
from scgi.net.address import Address
from scgi.net.allow import AllowList, needs_allow
from scgi.net.listen import Listener, inherited_listeners, open_listener
from scgi.net.notify import Notifier
from scgi.net.rendezvous import place_control
from scgi.supervisor import watcher
from scgi.supervisor.bell import Bell
from scgi.supervisor.child import end_with_parent
from scgi.supervisor.companion import Companion
from scgi.supervisor.control import Control
from scgi.supervisor.generation import GenerationPlan
from scgi.supervisor.isolation import Isolation, give_logs, isolate, owner_numbers, refuse_root, resolve
from scgi.supervisor.master import Master, MasterPlan
from scgi.supervisor.plan import PoolPlan, slots_for
from scgi.supervisor.title import set_title
from scgi.workers.standard import fill_standard_descriptors

log = logging.getLogger("scgi.server")

_NO_CONTROL: Final = "no control socket, so no scgi status, stacks, reload or stop"


def serve(app: Any, **settings: Any) -> int:
    """Serve an application until TERM or INT; returns the exit status that the command would have.

    `app` is a WSGI callable, a `SCGIHandler` subclass, or text as on the command line; the keywords are the
    settings' names (`listen`, `max_workers`, …), their values text or what Python has for it. Raises `ConfigError`,
    `AppLoadError`, `ListenError`, `MissingExtra`.
    """
    refuse_here("scgi.serve()")
    return run_server(Settings.from_keywords(app=app, **settings))


def run_server(settings: Settings, *, titled: bool = False) -> int:
    """Run, or with `check` only try, what the settings say; returns the exit status.

    `titled`: this process is nothing but our master, and `ps` may show it so.
    """
    fill_standard_descriptors()
    isolation = _isolation(settings)
    start_log(settings)
    with contextlib.ExitStack() as opened:
        bell = opened.enter_context(Bell())
        listeners = open_listeners(settings, isolation)
        for listener in listeners:
            opened.callback(listener.close)
        _refuse_strangers(listeners, settings)
        companions = []
        if settings.http is not None:
            front = open_listener(settings.http, backlog=settings.backlog)
            opened.callback(front.close)
            companions.append(_http_front(front, listeners, settings, isolation))
        if settings.reload:
            companions.append(_file_watcher(settings))
        access = program.open_access_log(settings)
        _give_logs(isolation, settings)
        if settings.check:
            opened.close()  # as who we are: the application's user could not
            return _check(settings, isolation)
        private = opened.enter_context(pid_file(settings.pid_file))
        control = _control(listeners, settings)
        if control is not None:
            opened.callback(control.close)
        _announce(listeners, settings)
        if titled:
            set_title(f"master, {', '.join(str(listener.address) for listener in listeners)}")
        generation = GenerationPlan(
            load=lambda: _load_plan(settings, access),
            isolation=isolation,
            slots=slots_for(settings.max_workers, settings.threads),
            threads=settings.threads,
            probe=settings.probe,
            start_timeout=settings.start_timeout,
        )
        plan = MasterPlan(
            generation,
            backlog=settings.backlog,
            graceful_timeout=settings.graceful_timeout,
            companions=companions,
            private=private,
            reopened=lambda: _give_logs(isolation, settings),
            http=None if settings.http is None else str(settings.http),
        )
        return int(Master(plan, listeners, bell, control, Notifier()).run())


def _isolation(settings: Settings) -> Isolation:
    isolation = resolve(
        user=settings.user,
        group=settings.group,
        groups=settings.groups,
        chroot=settings.chroot,
        umask=settings.umask,
        rlimit={name: limits(value) for name, value in settings.rlimit.items()},
        no_new_privileges=settings.no_new_privileges,
        clear_env=settings.clear_env,
    )
    refuse_root(isolation, settings.allow_root)
    return isolation


def _give_logs(isolation: Isolation, settings: Settings) -> None:
    """Workers open log files anew as who they are."""
    give_logs(isolation, [path for path in (settings.log_file, settings.access_log) if path not in ("", "-")])


def _check(settings: Settings, isolation: Isolation) -> int:
    """Load everything as a pool would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    isolate(isolation)
    application = program.load(settings)
    log.info("%s loads as %s, and every address can be bound", application.name, application.interface)
    return 0


def _load_plan(settings: Settings, access: program.Access | None) -> PoolPlan:
    """In the pool: import the application, and say what it is."""
    cache_settled_sources_only()
    application = program.load(settings)
    log.info(
        "serving %s (%s) with %d to %d workers%s",
        application.name,
        application.interface,
        settings.min_workers,
        settings.max_workers,
        f" of {settings.threads} threads" if settings.threads > 1 else "",
    )
    return program.pool_plan(application, settings, access)


def start_log(settings: Settings) -> None:
    """Set up logging. Raises `ConfigError` if the file cannot be opened."""
    try:
        scgi_log.setup(settings.log_level, settings.log_format, settings.log_file)
    except OSError as error:
        raise ConfigError(
            f"log-file: cannot open {settings.log_file}: {error.strerror}", source=settings.source("log_file")
        ) from None


def open_listeners(settings: Settings, isolation: Isolation) -> list[Listener]:
    """Open all addresses, or none. Raises `ListenError`.

    A unix socket belongs to the user whom the application runs as, unless `socket_owner` says otherwise.
    """
    listeners: list[Listener] = []
    uid, gid = owner_numbers(settings.socket_owner) or (-1, -1)
    if isolation.uid is not None and uid == -1:
        uid = isolation.uid
        gid = isolation.gid if gid == -1 and isolation.gid is not None else gid
    owner = None if (uid, gid) == (-1, -1) else (uid, gid)
    try:
        for address in settings.listen:
            if address.kind != "systemd":
                mode = settings.socket_mode
                listeners.append(open_listener(address, backlog=settings.backlog, socket_mode=mode, socket_owner=owner))
            elif inherited := inherited_listeners(settings.backlog):
                listeners += inherited
            else:
                raise ListenError("listen: systemd has handed over no sockets (LISTEN_PID, LISTEN_FDS)")
    except ListenError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _refuse_strangers(listeners: list[Listener], settings: Settings) -> None:
    """TCP beyond this machine needs to be told who may connect. Raises `ConfigError`."""
    if not settings.allow and (why := needs_allow(listener.address for listener in listeners)):
        raise ConfigError(why, source=settings.source("listen"))
    own = _reachable(listeners[0])
    if settings.http and settings.allow and own.kind == "tcp" and not AllowList(settings.allow).admits(own.host):
        raise ConfigError(
            f"allow: the HTTP front connects from {own.host}, which is not named; "
            f"add --allow {own.host}, or listen at a unix socket first"
        )


def _control(listeners: list[Listener], settings: Settings) -> Control | None:
    """The control socket, if there is a place for it."""
    path, why = place_control(settings.control, listeners[0].address, os.environ)
    if path is None:
        if why:
            log.warning("%s: %s (--control PATH names a place)", _NO_CONTROL, why)
        return None
    try:
        return Control(path)
    except ListenError as error:
        if settings.control:
            raise
        log.warning("%s: %s", _NO_CONTROL, error)
        return None


def _file_watcher(settings: Settings) -> Companion:
    """The process that asks for a reload when files change. Raises `MissingExtra` before anything is started."""
    watcher.require_watchfiles()
    app = settings.app if isinstance(settings.app, str) else ""
    folders = watcher.folders_to_watch(settings.chdir, app, settings.pythonpath)
    try:
        since = watcher.look(folders)  # what is saved while the application is imported for the first time counts too
    except OSError as error:
        raise ConfigError(f"reload: cannot look at {error.filename}: {error.strerror}") from None
    master = os.getpid()

    def changed(paths: list[str]) -> None:
        log.info("changed: %s", ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else ""))
        os.kill(master, signal.SIGHUP)

    def run() -> int:
        set_title("file watcher")
        return watcher.watch_files(folders, changed, since)

    return Companion("the file watcher", run, ends_by=signal.SIGKILL)


def _http_front(front: Listener, listeners: list[Listener], settings: Settings, isolation: Isolation) -> Companion:
    """The embedded HTTP server as a process of its own. Raises `MissingExtra` before anything is started."""
    if importlib.util.find_spec("uvicorn") is None:
        raise MissingExtra("http", "--http")
    upstream = _reachable(listeners[0])
    master = os.getpid()

    def run() -> int:
        from scgi.gateway import run_gateway

        def drop() -> None:
            isolate(dataclasses.replace(isolation, chroot="", limits=(), clear_env=False))
            end_with_parent(master)
            if upstream.kind == "unix" and not os.access(upstream.path, os.W_OK):
                log.warning("the HTTP front may not connect to %s: its user needs a part in the socket", upstream)

        set_title("HTTP front")
        run_gateway(
            front.sock,
            upstream,
            graceful_timeout=settings.graceful_timeout,
            head_timeout=settings.header_timeout,
            spool_limit=settings.max_body,
            imported=drop,
        )
        return 0

    return Companion(f"the HTTP front at http://{front.address}/", run, (front.sock,))


def _reachable(listener: Listener) -> Address:
    """Where we ourselves can connect to a listener: the loopback, if it listens everywhere."""
    address = listener.address
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(address.kind, anywhere.get(address.host, address.host), address.port, address.path)


def _announce(listeners: list[Listener], settings: Settings) -> None:
    log.info("listening on %s", ", ".join(str(listener.address) for listener in listeners))
    for listener in listeners:
        if listener.sock.family == socket.AF_UNIX or "any" in settings.allow:
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
