"""`scgi config nginx`, `apache`, `mod_scgi`, `lighttpd`, `systemd`: a whole configuration on standard output.

Imports `config`, `fronts`, `net`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import click

from scgi.cli.options import options_of
from scgi.config import parse
from scgi.config.layers import COMMAND_LINE, Row, command_line, raise_problems, resolve
from scgi.config.settings import DEFAULT_LISTEN
from scgi.fronts import apache as _apache
from scgi.fronts import lighttpd as _lighttpd
from scgi.fronts import nginx as _nginx
from scgi.fronts import site as wanted
from scgi.fronts import systemd as _systemd
from scgi.net.address import Address


def whole_seconds(raw: object) -> int:
    """That is what all web servers take."""
    return math.ceil(parse.duration(zero=False)(raw))


def _listen(raw: object) -> Address:
    text = str(raw)
    address = parse.address(f"any:{text}" if text.isdecimal() else text)
    if address.kind != "tcp" or not address.port or "%" in address.host:
        parse.refuse("a port (80) or HOST:PORT", raw)
    return Address("tcp", "" if text.isdecimal() else address.host, address.port)


def row(name: str, read: Callable[[object], Any], help: str, metavar: str, default: str, **more: Any) -> Row:
    return Row(name, "", read, help, metavar, default_text=default, **more)


def _each_once(found: list[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(found))


_UPSTREAM: Final = row(
    "upstream", parse.address, "Where the SCGI server listens; several: balanced, with failover.", "ADDRESS",
    str(DEFAULT_LISTEN), collect=wanted.upstreams,
)  # fmt: skip
_NAME: Final = row("name", wanted.parse_name, "What it is called.", "NAME", "application")
_OF_ALL: Final = (
    row("mount", wanted.parse_mount, "Where the application is mounted.", "PATH", "/", collect=_each_once),
    _UPSTREAM,
    row("static", wanted.parse_static, "The files below a path.", "PREFIX=DIR", "none", collect=_each_once),
    row("max_body", parse.size(1), "The longest body of a request.", "SIZE", "100m"),
    row("timeout", whole_seconds, "How long the application may be silent.", "SECONDS", "60"),
    Row("stream", "", parse.flag, "Pass on as it comes, where it can.", is_flag=True, sources=frozenset({"option"})),
    _NAME,
)
_WITH_A_HOST: Final = (
    *_OF_ALL,
    row("server_name", wanted.parse_server_name, "The site's host name.", "HOST", "localhost"),
    row("listen", _listen, "Where the web server answers HTTP.", "[HOST:]PORT", "80"),
)
_OF_SYSTEMD: Final = (
    _UPSTREAM,
    _NAME,
    row("app", parse.application, "As for 'scgi serve'.", "APP", "application.py"),
    row("directory", parse.path, "Where it is, beside its .venv.", "DIR", "/srv/NAME"),
    row("max_body", parse.size(1), "The longest body of a request.", "SIZE", "1g"),
    row("timeout", whole_seconds, "How long a request may take.", "SECONDS", "55"),
    row("unit", parse.choice(*_systemd.UNITS), "One unit alone.", "socket|service", "both"),
)


def _command(name: str, rows: tuple[Row, ...], write: Callable[[dict[str, Any]], str], what: str) -> click.Command:
    @click.command(name, help=f"Print {what}.")
    @options_of(rows)
    def command(**options: Any) -> None:
        values, _, problems = resolve(rows, [command_line(rows, options)])
        raise_problems(problems)
        try:
            text = write({"upstream": (DEFAULT_LISTEN,), **values})
        except ValueError as error:
            raise_problems([(COMMAND_LINE, str(error))])
        click.echo(text.encode("utf-8", "surrogateescape"), nl=False)

    return command


def _for_a_site(write: Callable[[wanted.Site], str]) -> Callable[[dict[str, Any]], str]:
    return lambda values: write(wanted.consistent(wanted.Site(**values)))


def _units(values: dict[str, Any]) -> str:
    kinds = [values.pop("unit")] if "unit" in values else _systemd.UNITS
    return "\n".join(_systemd.unit(_systemd.Service(**values), kind) for kind in kinds)


nginx = _command("nginx", _WITH_A_HOST, _for_a_site(_nginx.configuration), "a configuration for nginx")
apache = _command("apache", _WITH_A_HOST, _for_a_site(_apache.configuration), "one for Apache, with its mod_proxy_scgi")
mod_scgi = _command("mod_scgi", _WITH_A_HOST, _for_a_site(_apache.mod_scgi), "one for Apache, with our mod_scgi")
lighttpd = _command("lighttpd", _OF_ALL, _for_a_site(_lighttpd.configuration), "one for lighttpd")
systemd = _command("systemd", _OF_SYSTEMD, _units, "a socket, which is --upstream, and a service for systemd")
