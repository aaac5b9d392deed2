"""`scgi config check`: finds what a running web server was told wrong, and which line to change.

Imports `config`, `fronts`, `net`, `errors`.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import click

from scgi.cli.fronts import row, whole_seconds
from scgi.cli.options import options_of
from scgi.config import parse
from scgi.config.layers import COMMAND_LINE, Row, command_line, raise_problems, resolve
from scgi.config.settings import DEFAULT_LISTEN
from scgi.errors import ExitCode, ListenError, ScgiError
from scgi.fronts.check import Check, Wanted
from scgi.fronts.probe import Probe
from scgi.fronts.site import MEGABYTE, parse_mount
from scgi.log import escape


def _url(raw: object) -> tuple[str, str, int, str]:
    """scheme, host, port and mount of http://host:port/mount."""
    try:
        found = urlsplit(str(raw))
        port = found.port or {"http": 80, "https": 443}[found.scheme]
        if found.hostname and not (found.query or found.fragment or found.username):
            return found.scheme, found.hostname, port, parse_mount(found.path or "/")
    except (ValueError, KeyError):
        pass
    parse.refuse("a URL such as http://localhost:8080/shop", raw)


_ROWS: Final = (
    row("front", _url, "Where the web server answers.", "URL", "http://localhost"),
    row("upstream", parse.address, "Where it forwards to.", "ADDRESS", str(DEFAULT_LISTEN)),
    row("mount", parse_mount, "The path of the application.", "PATH", "the URL's"),
    row("max_body", parse.size(1), "The longest body that must pass.", "SIZE", "100m"),
    row("timeout", whole_seconds, "How long it must wait for an answer.", "SECONDS", "not tried"),
    Row("stream", "", parse.flag, "It must pass on as it comes.", is_flag=True, sources=frozenset({"option"})),
)


@click.command()
@options_of(_ROWS)
def check(**options: Any) -> int:
    """Ask a running web server for pages, and say what it was told wrong.

    For the time of the check (a few seconds) a probe listens at the address that the web server forwards to: stop the
    application's server before. The exit status is 0 if all is well, 1 if something is wrong.
    """
    values, _, problems = resolve(_ROWS, [command_line(_ROWS, options)])
    scheme, host, port, mount = values.get("front", ("http", "localhost", 80, ""))
    if mount and "mount" in values:
        problems.append((COMMAND_LINE, f"--mount: expected either this or a path in --front, got {mount} there"))
    upstream = values.get("upstream", DEFAULT_LISTEN)
    if upstream.kind == "systemd" or (upstream.kind == "tcp" and not upstream.port):
        problems.append((COMMAND_LINE, f"--upstream: expected HOST:PORT or unix:PATH, got '{upstream}'"))
    raise_problems(problems)
    size, stream, timeout = values.get("max_body", 100 * MEGABYTE), "stream" in values, values.get("timeout", 0)
    wanted = Wanted(scheme, host, port, values.get("mount", mount), size, stream, timeout)
    wrong = 0
    try:
        with Probe(upstream, silence=max(0.0, timeout - 0.5)) as probe:
            for found in Check(wanted, probe).findings():
                wrong += found.state == "problem"
                sentence = f": {found.sentence}" if found.sentence else ""
                change = f"\n         change: {found.line}" if found.line else ""
                click.echo(escape(f"{found.state:<8} {found.point}{sentence}") + change)
    except ListenError as error:
        raise ScgiError(f"{error}\nfor the check, stop what listens there (with systemd: its socket too)") from None
    click.echo(f"{wrong} wrong; 'scgi config' prints configurations that are right" if wrong else "all is well")
    return ExitCode.FAILED if wrong else ExitCode.OK
