"""`scgi config`: the effective settings, or the reference page of all settings.

Imports `config`.
"""

from __future__ import annotations

import os

import click

from scgi.cli.options import SettingsCommand, options_of
from scgi.config.reference import effective, page
from scgi.config.settings import ROWS, load


@click.command(cls=SettingsCommand)
@options_of(row for row in ROWS if row.name != "check")
@click.option("--reference", is_flag=True, help="Print the reference page of all settings, in Markdown.")
def config(reference: bool, **options: object) -> None:
    """Print the settings that 'scgi serve' with the same options would have, and where each comes from.

    What is printed is itself a settings file.
    """
    click.echo(page() if reference else effective(load(options, os.environ)), nl=False)
