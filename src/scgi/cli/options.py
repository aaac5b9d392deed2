"""click options made from the rows of the settings; click does not parse their values, `config` does.

Imports `config`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from scgi.config.layers import Row
from scgi.config.reference import spelling, written
from scgi.config.settings import ROWS, SECTIONS, Settings


class SettingsCommand(click.Command):
    """A command whose help lists the options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {section: [] for section in (*SECTIONS, "Others")}
        known = {row.name: row for row in ROWS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                row = known.get(param.name or "")
                sections[row.section if row else "Others"].append(record)
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)


def options_of(rows: Iterable[Row]) -> Callable[[Any], Any]:
    """A decorator that gives a click function each row as an argument; None or () is not given."""

    def decorate(function: Any) -> Any:
        for row in reversed(list(rows)):
            function = _parameter(row)(function)
        return function

    return decorate


def _parameter(row: Row) -> Callable[[Any], Any]:
    if row.positional:
        return click.argument(row.name, metavar=f"[{row.metavar}]", required=False)
    if row.is_flag:
        return click.option(spelling(row), row.name, default=None, is_flag=True, help=_help(row))
    multiple = row.collect is not None
    return click.option(row.option, row.name, metavar=row.metavar, multiple=multiple, help=_help(row))


def _help(row: Row) -> str:
    if row.is_flag and not row.negatable:
        return row.help
    default = row.default_text or written(row, getattr(Settings(), row.name)).strip('"')
    repeatable = " Repeatable." if row.collect else ""
    return f"{row.help}{repeatable} [default: {default}]"
