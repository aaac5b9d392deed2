# ruff: noqa: RUF009
# (a field's default is a call of `setting`, which is what a dataclass's own `field` is)
"""Every setting of the server, one row each, in one place.

Options, SCGI_… variables, keys of the settings file, keywords of `scgi.serve` and the reference page are all
read from these rows. The strongest source wins, whole: command line, environment, file, default; lists are
replaced, not joined. A settings file is read only where it is named. Settings are values: they import and
open nothing. Imports `config.layers`, `config.parse`, `config.cpus`, `net.address`, `errors`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from scgi.config import layers, parse
from scgi.config.cpus import usable_cpus
from scgi.config.layers import Given, Row
from scgi.net.address import Address

DEFAULT_LISTEN: Final = Address("tcp", "127.0.0.1", 4000)
SECTIONS: Final = ("Application", "Addresses", "Pool", "Limits", "Isolation", "Logs", "Command")


def default_listen() -> tuple[Address, ...]:
    """The sockets that systemd hands over, where there are any (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0":
        return (Address("systemd"),)
    return (DEFAULT_LISTEN,)


def default_max_workers() -> int:
    return max(4, 2 * usable_cpus())


def setting(default: Any, *, not_from: tuple[str, ...] = (), **about: Any) -> Any:
    """A field of `Settings` with its row, from what `Row` has. A callable `default` is called each time."""
    sources = frozenset({"option", "environment", "file", "keyword"}.difference(not_from))
    metadata = {"row": functools.partial(Row, sources=sources, **about)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


# fmt: off
@dataclass(frozen=True)
class Settings:
    """What a server is to do. `Settings()` is all defaults; see `load` and `from_keywords`."""

    app: Any = setting(
        "", section="Application", parse=parse.application, metavar="APP", positional=True,
        default_text="none",
        help="The application: module:attribute, module:factory(), path/to/file.py or "
        "path/to/file.py:attribute.",
    )
    cgi: str = setting(
        "", section="Application", parse=parse.path, metavar="PATH", default_text="off",
        help="Instead of an application, run CGI programs: this one, or those in this folder.",
    )
    interface: str = setting(
        "auto", section="Application", parse=parse.choice("auto", "wsgi", "handler"), metavar="KIND",
        help="How the application is called: auto (recognise it), wsgi (a WSGI callable) or handler "
        "(a subclass of SCGIHandler).",
    )
    mount: str | None = setting(
        None, section="Application", parse=parse.mount, metavar="PATH", default_text="as the web server says",
        help="The URL path where the application is mounted, such as /app, or / for the root. "
        "Needed where the web server does not say, or says it wrongly.",
    )
    chdir: str = setting(
        "", section="Application", parse=parse.path, metavar="FOLDER",
        default_text="where the command is started",
        help="Change to this folder before the application is imported; it is also first on the module "
        "search path.",
    )
    pythonpath: tuple[str, ...] = setting(
        (), section="Application", parse=parse.path, metavar="FOLDER", collect=tuple, default_text="none",
        help="Put this folder on the module search path, before the installed packages.",
    )
    env: dict[str, str] = setting(
        dict, section="Application", parse=parse.assignment, metavar="NAME=VALUE", collect=dict,
        default_text="none",
        help="Set this variable in the application's environment. In the file also as a table.",
    )
    reload: bool = setting(
        False, section="Application", parse=parse.flag, is_flag=True,
        help="Reload when a Python file of the application changes; for development (needs scgi-server[reload]).",
    )
    probe: str = setting(
        "", section="Application", parse=parse.probe, metavar="PATH", default_text="off",
        help="Ask new code for this path before it serves; an answer of 500 or more, or none, means that it is "
        "broken: it does not start, and a reload leaves the old code serving.",
    )

    listen: tuple[Address, ...] = setting(
        default_listen, section="Addresses", parse=parse.address, metavar="ADDRESS", collect=parse.addresses,
        default_text="127.0.0.1:4000, or the sockets that systemd hands over",
        help="Where to listen for SCGI requests: 4000, HOST:PORT, [IPV6]:PORT, unix:PATH, a path with a "
        "slash, or systemd.",
    )
    http: Address | None = setting(
        None, section="Addresses", parse=parse.optional_address, metavar="ADDRESS", default_text="off",
        help="Also answer HTTP at this address, through the embedded front (needs scgi-server[http]).",
    )
    socket_mode: int = setting(
        0o660, section="Addresses", parse=parse.octal, metavar="MODE", unit="octal",
        help="The mode of unix sockets, in octal.",
    )
    socket_owner: str = setting(
        "", section="Addresses", parse=parse.owner, metavar="USER[:GROUP]", default_text="who starts the server",
        help="Who owns the unix sockets, by name or number; :GROUP changes the group alone.",
    )
    allow: tuple[str, ...] = setting(
        (), section="Addresses", parse=parse.network, metavar="CIDR", collect=tuple, default_text="this machine only",
        help="Which machines may connect over TCP: 10.0.0.0/8, 2001:db8::5, or any. Needed to listen beyond "
        "the loopback; the loopback itself needs none, and is refused too once others are named without it.",
    )
    backlog: int = setting(
        2048, section="Addresses", parse=parse.whole(1), metavar="NUMBER",
        help="How many connections may wait to be accepted; the kernel may cap it (net.core.somaxconn).",
    )
    require_scgi: bool = setting(
        True, section="Addresses", parse=parse.flag, is_flag=True,
        help="Refuse requests without the variable SCGI=1, which the protocol demands. "
        "nginx without its scgi_params file does not send it.",
    )

    min_workers: int = setting(
        1, section="Pool", parse=parse.whole(0), metavar="NUMBER",
        help="How many worker processes are kept even when idle.",
    )
    max_workers: int = setting(
        default_max_workers, section="Pool", parse=parse.whole(1), metavar="NUMBER",
        default_text="2 × the CPUs that the cgroup allows, at least 4",
        help="How many worker processes there are at most. One is added when none is idle and a request "
        "waits.",
    )
    threads: int = setting(
        1, section="Pool", parse=parse.whole(1), metavar="NUMBER",
        help="How many threads a worker has; each serves one request at a time.",
    )
    idle_timeout: float = setting(
        30.0, section="Pool", parse=parse.duration(zero=False), metavar="SECONDS", unit="seconds",
        help="After how long without work a surplus worker retires.",
    )
    graceful_timeout: float = setting(
        30.0, section="Pool", parse=parse.duration(zero=True), metavar="SECONDS", unit="seconds",
        help="How long running requests may take to finish when the server stops; then they are killed.",
    )
    start_timeout: float = setting(
        120.0, section="Pool", parse=parse.duration(zero=False), metavar="SECONDS", unit="seconds",
        help="How long the application may take to be imported and its first worker to be ready; then it counts "
        "as broken.",
    )
    max_requests: int = setting(
        0, section="Pool", parse=parse.whole(0), metavar="NUMBER", default_text="off",
        help="Replace a worker after about so many requests (up to a tenth fewer, so that they do not go together). "
        "It serves on until its successor is ready.",
    )
    max_worker_age: float = setting(
        0.0, section="Pool", parse=parse.duration(zero=True), metavar="SECONDS", unit="seconds", default_text="off",
        help="Replace a worker after about so long (up to a tenth sooner).",
    )
    max_memory: int = setting(
        0, section="Pool", parse=parse.size(0), metavar="SIZE", unit="bytes", default_text="off",
        help="Replace a worker whose resident memory is more than this, once it has finished what it does.",
    )

    max_header: int = setting(
        1 << 20, section="Limits", parse=parse.size(1024), metavar="SIZE", unit="bytes",
        help="The largest head of a request, all its variables together; beyond it 431 is answered.",
    )
    max_variables: int = setting(
        2000, section="Limits", parse=parse.whole(16), metavar="NUMBER",
        help="The most variables in a request; beyond it 431 is answered.",
    )
    max_body: int = setting(
        1 << 30, section="Limits", parse=parse.size(0), metavar="SIZE", unit="bytes",
        help="The largest body of a request; beyond it 413 is answered, before it is read.",
    )
    header_timeout: float = setting(
        10.0, section="Limits", parse=parse.duration(zero=False), metavar="SECONDS", unit="seconds",
        help="How long the whole head of a request may take to arrive; then 408 is answered.",
    )
    body_timeout: float = setting(
        60.0, section="Limits", parse=parse.duration(zero=False), metavar="SECONDS", unit="seconds",
        help="How long the body of a request may stand still; then 408 is answered. A body that only drips "
        "is ended too.",
    )

    timeout: float = setting(
        55.0, section="Limits", parse=parse.duration(zero=True), metavar="SECONDS", unit="seconds",
        help="How long a request may run inside the application: the call, and each step of what it returns; waiting "
        "for the peer does not count. Then it is interrupted and 504 is answered. 0 is no limit.",
    )

    user: str = setting(
        "", section="Isolation", parse=parse.word("the name or number of a user"), metavar="USER",
        default_text="who starts the server",
        help="Run the application as this user. The server itself, which never imports the application, stays root.",
    )
    group: str = setting(
        "", section="Isolation", parse=parse.word("the name or number of a group"), metavar="GROUP",
        default_text="the user's own",
        help="Run the application with this group.",
    )
    groups: tuple[str, ...] = setting(
        (), section="Isolation", parse=parse.word("the name or number of a group"), metavar="GROUP", collect=tuple,
        default_text="none",
        help="Run the application with these supplementary groups.",
    )
    chroot: str = setting(
        "", section="Isolation", parse=parse.path, metavar="FOLDER", default_text="none",
        help="Make this folder the application's root. Its modules, and chdir and pythonpath, are looked for inside.",
    )
    umask: int | None = setting(
        None, section="Isolation", parse=parse.octal, metavar="MODE", unit="octal", default_text="as it is",
        help="The file mode creation mask of the application, in octal.",
    )
    rlimit: dict[str, str] = setting(
        dict, section="Isolation", parse=parse.rlimit, metavar="NAME=VALUE", collect=dict, default_text="as they are",
        help="Limit a resource of the application's processes (setrlimit(2)): nofile=1024, as=2g, core=0; "
        "SOFT:HARD sets both apart, unlimited lifts one.",
    )
    no_new_privileges: bool = setting(
        False, section="Isolation", parse=parse.flag, is_flag=True,
        help="No program that the application starts can gain privileges (Linux). Always so with user.",
    )
    clear_env: bool = setting(
        False, section="Isolation", parse=parse.flag, is_flag=True,
        help="The application sees only what env sets, and PATH, HOME, USER, LANG, LC_…, TZ.",
    )
    allow_root: bool = setting(
        False, section="Isolation", parse=parse.flag, is_flag=True,
        help="Let the application run as root, which is refused otherwise.",
    )

    log_level: str = setting(
        "info", section="Logs", parse=parse.choice("debug", "info", "warning", "error"), metavar="LEVEL",
        help="The least important lines to log: debug, info, warning or error.",
    )
    log_format: str = setting(
        "text", section="Logs", parse=parse.choice("text", "json"), metavar="FORMAT",
        help="Lines for people (text) or one JSON object a line (json).",
    )
    log_file: str = setting(
        "", section="Logs", parse=parse.path_or_stderr, metavar="FILE", default_text="standard error",
        help="Append the log to this file. SIGUSR1 opens it anew, for log rotation.",
    )
    slow_log: float = setting(
        0.0, section="Logs", parse=parse.duration(zero=True), metavar="SECONDS", unit="seconds", default_text="off",
        help="Log where a request is, all stacks of its worker, once it has run so long inside the application.",
    )
    access_log: str = setting(
        "", section="Logs", parse=parse.path_or_stdout, metavar="FILE", default_text="off",
        help="Append a line for each request to this file; - is standard output. SIGUSR1 opens it anew.",
    )

    control: str = setting(
        "", section="Command", parse=parse.control, metavar="PATH", default_text="found by itself",
        help="The control socket, for scgi status, stacks, reload and stop; none switches it off. By default it is in "
        "$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/scgi or /run/scgi, named after the first address.",
    )
    pid_file: str = setting(
        "", section="Command", parse=parse.path, metavar="FILE", default_text="none",
        help="Write the server's process id to this file.",
    )
    check: bool = setting(
        False, section="Command", parse=parse.flag, is_flag=True, not_from=("environment", "file", "keyword"),
        help="Load everything, say what is wrong, and exit.",
    )
    config: str = setting(
        "", section="Command", parse=parse.path, metavar="FILE", not_from=("file",), default_text="none",
        help="Read settings from this TOML file. No file is read unless it is named.",
    )

    # fmt: on
    origins: Mapping[str, Given] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def source(self, name: str) -> str:
        """Where a setting came from: "command line", "SCGI_LISTEN", "scgi.toml:7", "keyword" or "default"."""
        return self.origins[name].source if name in self.origins else "default"

    @classmethod
    def from_keywords(cls, **given: object) -> Self:
        """The same settings from Python; `config` may name a file, None means not given.

        The environment is not looked at: the program decides. Raises `ConfigError` with all problems.
        """
        named = {name: raw for name, raw in given.items() if raw is not None}
        return cls._resolve([*_file_layers(named.get("config")), layers.keywords(ROWS, named)])

    @classmethod
    def _resolve(cls, found: list[layers.Layer]) -> Self:
        values, origins, problems = layers.resolve(ROWS, found)
        if "max_workers" not in origins:
            values["max_workers"] = max(default_max_workers(), values.get("min_workers", 1))
        settings = cls(**values, origins=origins)
        layers.raise_problems(problems + list(_contradictions(settings)))
        return settings


ROWS: Final[tuple[Row, ...]] = tuple(
    field.metadata["row"](name=field.name)
    for field in dataclasses.fields(Settings)
    if "row" in field.metadata
)


def load(options: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Settings for a command: its options, the environment, the file that either names.

    `options` are click's, by the rows' names; None or () means not given. Raises `ConfigError` with all
    problems.
    """
    environment = layers.environment(ROWS, environ)
    command_line = layers.command_line(ROWS, options)
    file = options.get("config") or environ.get("SCGI_CONFIG")
    return Settings._resolve([*_file_layers(file), environment, command_line])


def _file_layers(file: object) -> list[layers.Layer]:
    return [layers.toml_file(ROWS, os.fspath(file))] if isinstance(file, str | os.PathLike) and file else []


def _contradictions(settings: Settings) -> Iterator[layers.Problem]:
    """Values that are fine alone but not together, or not on this machine."""

    def problem(name: str, sentence: str) -> layers.Problem:
        given = settings.origins.get(name)
        return (given.source, f"{given.label}: {sentence}") if given else ("default", f"{name}: {sentence}")

    if settings.min_workers > settings.max_workers:
        told = "min_workers" if "min_workers" in settings.origins else "max_workers"
        both = f"{settings.min_workers} and {settings.max_workers}"
        yield problem(told, f"expected min-workers to be at most max-workers, got {both}")
    if settings.http and settings.http.kind == "systemd":
        yield problem("http", "expected an address of its own; sockets from systemd are for SCGI")
    if settings.http in settings.listen:
        yield problem("http", f"{settings.http} is for SCGI already (listen); HTTP needs one of its own")
    if settings.chdir and not settings.chroot and not os.path.isdir(settings.chdir):
        yield problem("chdir", f"there is no folder {settings.chdir}")
    for path in () if settings.chroot else settings.pythonpath:  # those are inside of it
        if not os.path.exists(path):
            yield problem("pythonpath", f"there is no folder {path}")
    for name in ("log_file", "access_log", "pid_file"):
        path = getattr(settings, name)
        if not path or path == "-":
            continue
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            yield problem(name, f"the folder {folder} does not exist")
        elif os.path.isdir(path):
            yield problem(name, f"expected a file, but {path} is a folder")
        elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
            yield problem(name, f"{path} cannot be written: not permitted")
