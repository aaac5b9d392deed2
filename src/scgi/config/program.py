"""From settings to the application: what a pool does to load it, and what its workers need to know.

Imports `apps`, `net`, `protocol`, `workers`, `supervisor` and the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from scgi import log as scgi_log
from scgi.apps.cgi import CgiAdapter
from scgi.apps.cgi_process import end_session, lead_session
from scgi.apps.cgi_site import Site
from scgi.apps.handler import HandlerAdapter
from scgi.apps.load import (
    Application,
    check_application,
    load_application,
    prepare_path,
    refuse_unrunnable,
)
from scgi.apps.paths import parse_mount
from scgi.apps.wsgi import WsgiAdapter
from scgi.config.settings import Settings
from scgi.errors import ConfigError
from scgi.net.allow import AllowList
from scgi.net.stream import Patience
from scgi.protocol.request import Limits
from scgi.status.scoreboard import Slot
from scgi.supervisor.plan import PoolPlan
from scgi.supervisor.policy import PoolPolicy
from scgi.supervisor.recycle import Ration
from scgi.workers.blocking import Adapter, WorkerPlan

Access = Callable[[Slot, float], None]
_GRACE: Final = 5.0  # seconds that a worker has to end a program whose time is over


def load(settings: Settings) -> Application:
    """Import the application. Raises `AppLoadError`."""
    prepare_path(settings.chdir, settings.pythonpath, {} if settings.cgi else settings.env)
    if settings.cgi:
        _refuse_what_programs_cannot(settings)
        return Application(Site(settings.cgi), "cgi", settings.cgi)
    if isinstance(settings.app, str):
        application = load_application(settings.app, settings.interface)
    else:
        application = check_application(settings.app, settings.interface)
    if application.interface == "handler":
        refuse_unrunnable(application.target, settings.threads)
    return application


def _refuse_what_programs_cannot(settings: Settings) -> None:
    if settings.app:
        raise ConfigError(f"cgi: expected programs or an application, found both: {settings.cgi} and {settings.app}")
    if settings.threads > 1:
        raise ConfigError(
            "threads: a CGI program is a process of its own, so its worker has one thread; use --max-workers instead",
            source=settings.source("threads"),
        )


def pool_plan(application: Application, settings: Settings, access: Access | None) -> PoolPlan:
    """What a pool of workers for a loaded application needs to know."""
    return PoolPlan(
        worker=_worker_plan(application, settings, access),
        policy=PoolPolicy(settings.min_workers, settings.max_workers, settings.idle_timeout),
        graceful_timeout=settings.graceful_timeout,
        ration=Ration(settings.max_requests, settings.max_worker_age, settings.max_memory),
        timeout=settings.timeout + _GRACE if settings.timeout and application.interface == "cgi" else settings.timeout,
        slow_log=settings.slow_log,
    )


def _worker_plan(application: Application, settings: Settings, access: Access | None) -> WorkerPlan:
    patience = Patience(head=settings.header_timeout, body=settings.body_timeout)
    make_adapter: Callable[[int], Adapter]
    base: dict[str, Any] = {}
    mount = None if settings.mount is None else parse_mount(settings.mount)
    bury = None
    if application.interface == "cgi":
        programs = CgiAdapter(
            application.target, settings.env, mount=mount, timeout=settings.timeout, patience=patience
        )
        bury = end_session

        def make_adapter(lifeline: int) -> Adapter:
            lead_session()
            return programs.answer
    elif application.interface == "handler":

        def make_adapter(lifeline: int) -> Adapter:
            return HandlerAdapter(application.target(lifeline), patience).answer
    else:
        wsgi = WsgiAdapter(
            application.target,
            mount=mount,
            multithread=settings.threads > 1,
            patience=patience,
        )
        base = wsgi.base

        def make_adapter(lifeline: int) -> Adapter:
            return wsgi.answer

    return WorkerPlan(
        make_adapter,
        base=base,
        threads=settings.threads,
        limits=Limits(settings.max_header, settings.max_variables, settings.max_body),
        require_scgi=settings.require_scgi,
        patience=patience,
        access=access,
        bury=bury,
        allow=AllowList(settings.allow) if settings.allow else None,
    )


def open_access_log(settings: Settings) -> Access | None:
    """What is called after each request, if there is an access log. Raises `ConfigError`."""
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
