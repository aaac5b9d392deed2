"""`scgi config`: the effective settings, or the reference page of all settings; and what is to be told to others.

`scgi config nginx` and its like are commands of their own, in `cli/fronts.py` and `cli/check.py`. Imports `config`.
"""

from __future__ import annotations

import difflib
import importlib
import os
from typing import Any, Final

import click

from scgi.cli.options import SettingsCommand, options_of
from scgi.config.reference import effective, page
from scgi.config.settings import ROWS, load

_FRONTS: Final = "scgi.cli.fronts"
COMMANDS: Final = {
    "nginx": (_FRONTS, "Print a configuration for nginx."),
    "apache": (_FRONTS, "Print one for Apache, with its mod_proxy_scgi."),
    "mod_scgi": (_FRONTS, "Print one for Apache, with our mod_scgi."),
    "lighttpd": (_FRONTS, "Print one for lighttpd."),
    "systemd": (_FRONTS, "Print a socket and a service for systemd."),
    "check": ("scgi.cli.check", "Find what a running web server was told wrong."),
}


class ConfigCommand(SettingsCommand):
    """A command that hands over to another if its first word names one; APP is never such a word."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        word = args[0] if args else ""
        if word in COMMANDS:
            command = getattr(importlib.import_module(COMMANDS[word][0]), word)
            assert isinstance(command, click.Command)
            return command.make_context(f"{info_name} {word}", args[1:], *rest, **extra)
        near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.7)
        if near and not set(word) & set(":/."):
            raise click.UsageError(f"there is no 'scgi config {word}'; did you mean {near[0]!r}?")
        return super().make_context(info_name, args, *rest, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Or one of these words, in place of [OPTIONS]"):
            formatter.write_dl([(word, help) for word, (_, help) in COMMANDS.items()])
        super().format_options(ctx, formatter)


@click.command(cls=ConfigCommand)
@options_of(row for row in ROWS if row.name != "check")
@click.option("--reference", is_flag=True, help="Print the reference page of all settings, in Markdown.")
def config(reference: bool, **options: object) -> None:
    """Print the settings that 'scgi serve' with the same options would have, and where each comes from.

    What is printed is itself a settings file.
    """
    click.echo(page() if reference else effective(load(options, os.environ)), nl=False)
