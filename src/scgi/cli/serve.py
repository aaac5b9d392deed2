"""`scgi serve APP`: settings in, a running server out.

Imports `config` and its neighbours.
"""

from __future__ import annotations

import os

import click

from scgi.cli.neighbour import refuse_mixed_folder
from scgi.cli.options import SettingsCommand, options_of
from scgi.config.fork import require_fork
from scgi.config.settings import ROWS, load


@click.command(cls=SettingsCommand)
@options_of(ROWS)
def serve(**options: object) -> int:
    """Serve the application APP to a web server that speaks SCGI.

    APP is module:attribute, module:factory(), path/to/file.py or path/to/file.py:attribute; a WSGI
    application or a subclass of SCGIHandler. With --cgi there is none: it runs CGI programs.
    Every option is also a variable (SCGI_MAX_WORKERS) and a key of the settings file.
    """
    require_fork("serve")
    refuse_mixed_folder()
    settings = load(options, os.environ)
    if not settings.app and not settings.cgi:
        raise click.UsageError(
            "no application to serve: name one, as in 'scgi serve module:attribute' or 'scgi serve file.py', "
            "or programs: 'scgi serve --cgi cgi-bin'",
            click.get_current_context(),
        )
    from scgi.config.build import run_server

    return run_server(settings, titled=True)
