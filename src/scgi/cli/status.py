"""`scgi status`: what a running server does, as a table or as JSON.

Imports `client`, `status`, `errors`.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any, Final

import click

from scgi.cli.running import control_of, running_server
from scgi.client.control import ask
from scgi.errors import ScgiError
from scgi.status.render import render
from scgi.status.snapshot import Snapshot

_PATIENCE: Final = 10.0  # seconds; the master never works on anything for long


@click.command()
@running_server
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool, **options: Any) -> None:
    """Show what a running server does.

    ADDRESS is the first that the server listens at; where there is only one server, none is needed.
    """
    path = control_of(options)
    found = next((message["status"] for message in ask(path, "status", _PATIENCE) if "status" in message), None)
    if as_json and found is not None:
        click.echo(json.dumps(found, indent=2))
        return
    try:
        snapshot = Snapshot.from_json(found or {})
    except ValueError:
        raise ScgiError(f"the server at {path} did not say what it does; is it of another version?") from None
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(render(snapshot, width).encode(sys.stdout.encoding, "backslashreplace"), nl=False)
