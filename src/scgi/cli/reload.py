"""`scgi reload`: new code in place of the old, and whether it serves.

Imports `client`, `log`, `errors`.
"""

from __future__ import annotations

from typing import Any

import click

from scgi.cli.running import control_of, running_server, tell_progress
from scgi.client.control import ask
from scgi.errors import ScgiError
from scgi.log import escape


@click.command()
@running_server
def reload(**options: Any) -> None:
    """Have a running server load the application anew.

    Waits until the new code serves. If it does not, says why; then the code from before serves on. ADDRESS is the
    first that the server listens at; where there is only one server, none is needed.
    """
    for message in ask(control_of(options), "reload"):
        tell_progress(message)
        if message.get("done"):
            click.echo(f"generation {message['generation']} serves ({message['seconds']:.2f} s)")
            return
        if "done" in message:
            for line in str(message.get("traceback") or "").splitlines():
                click.echo(escape(line), err=True)
            click.echo(f"scgi: {escape(str(message['reason']))}", err=True)
            raise ScgiError("the reload failed; nothing has changed")
    raise ScgiError("the server ended before the new code served")
