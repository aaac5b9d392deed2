"""`scgi gateway`: an HTTP server that asks an SCGI server.

Imports `config`, `gateway`, `net`, `log`, `errors`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import click

from scgi import log
from scgi.cli.options import options_of
from scgi.config import parse
from scgi.config.layers import COMMAND_LINE, Row, command_line, raise_problems, resolve
from scgi.config.settings import DEFAULT_LISTEN, ROWS
from scgi.errors import MissingExtra
from scgi.net.address import Address
from scgi.net.listen import open_listener

DEFAULT_HTTP: Final = Address("tcp", "127.0.0.1", 8000)
DEFAULT_TIMEOUT: Final = 60.0

_ROWS: Final = (
    Row("http", "", parse.address, "Where to answer HTTP.", "ADDRESS", default_text=str(DEFAULT_HTTP)),
    Row("upstream", "", parse.address, "The SCGI server to ask.", "ADDRESS", default_text=str(DEFAULT_LISTEN)),
    Row(
        name="timeout",
        section="",
        parse=parse.duration(zero=False),
        help="How long the SCGI server may be silent; then 504 is answered.",
        metavar="SECONDS",
        default_text=f"{DEFAULT_TIMEOUT:g}",
    ),
    *(row for row in ROWS if row.name in ("log_level", "log_format", "log_file")),
)


@click.command()
@options_of(_ROWS)
def gateway(**options: Any) -> None:
    """Answer HTTP by asking an SCGI server.

    For trying an application without a web server, or as a small one in front of it. Needs scgi-server[http].
    """
    values, _, problems = resolve(_ROWS, [command_line(_ROWS, options)])
    http, upstream = values.get("http", DEFAULT_HTTP), values.get("upstream", DEFAULT_LISTEN)
    for option, address in (("--http", http), ("--upstream", upstream)):
        if address.kind == "systemd":
            problems.append((COMMAND_LINE, f"{option}: expected HOST:PORT or unix:PATH, got 'systemd'"))
    raise_problems(problems)
    _start_log(values)
    if find_spec("uvicorn") is None:
        raise MissingExtra("http", "the gateway")
    from scgi.gateway import run_gateway

    listener = open_listener(http)
    click.echo(f"scgi: http://{listener.address} asks {upstream}; Ctrl-C ends it", err=True)
    try:
        run_gateway(listener.sock, upstream, read_timeout=values.get("timeout", DEFAULT_TIMEOUT))
    finally:
        listener.close()


def _start_log(values: dict[str, Any]) -> None:
    file = values.get("log_file", "")
    try:
        log.setup(values.get("log_level", "info"), values.get("log_format", "text"), file)
    except OSError as error:
        raise_problems([(COMMAND_LINE, f"--log-file: {file} cannot be written: {error.strerror}")])
