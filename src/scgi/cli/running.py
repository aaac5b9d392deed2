"""Which running server a command is for.

ADDRESS or --control say so, else SCGI_CONTROL or SCGI_LISTEN; else it is the only one there is. Imports `config`,
`net`, `log`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from scgi.cli.options import options_of
from scgi.config import parse
from scgi.config.layers import Row, command_line, environment, raise_problems, resolve
from scgi.config.settings import ROWS
from scgi.log import escape
from scgi.net.rendezvous import find_control

_OF_THE_SERVER: Final = tuple(row for row in ROWS if row.name in ("control", "listen"))
_ASKED: Final = (
    Row("address", "", parse.address, "", "ADDRESS", positional=True),
    Row("control", "", parse.control, "The server's control socket.", "PATH", default_text="found by the address"),
)
running_server = options_of(_ASKED)


def control_of(options: Mapping[str, Any]) -> Path:
    """The control socket that the options, or the environment, mean. Raises `ScgiError` with a sentence."""
    values, _, problems = resolve(_ASKED, [command_line(_ASKED, options)])
    if not values and not problems:
        values, _, problems = resolve(_OF_THE_SERVER, [environment(_OF_THE_SERVER, os.environ)])
    raise_problems(problems)
    address = values.get("address") or next(iter(values.get("listen", ())), None)
    return find_control(str(address) if address else None, values.get("control", ""), os.environ)


def tell_progress(message: Mapping[str, Any]) -> None:
    """What a server says while it carries out an order."""
    if "progress" in message:
        click.echo(escape(str(message["progress"])))
