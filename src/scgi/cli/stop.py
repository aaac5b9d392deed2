"""`scgi stop`: ends a running server, and waits until it has ended.

Imports `client`.
"""

from __future__ import annotations

from typing import Any

import click

from scgi.cli.running import control_of, running_server, tell_progress
from scgi.client.control import ask


@click.command()
@running_server
def stop(**options: Any) -> None:
    """Stop a running server.

    What has arrived is served before, for as long as the server's graceful timeout allows. Waits until the server
    has ended. ADDRESS is the first that it listens at; where there is only one server, none is needed.
    """
    for message in ask(control_of(options), "stop"):
        tell_progress(message)
    click.echo("stopped")
