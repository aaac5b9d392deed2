"""Settings written down for people: the reference page, and the effective settings of one server as TOML.

Imports `config.settings` and `net.address`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from scgi.config.layers import Row
from scgi.config.settings import ROWS, SECTIONS, Settings
from scgi.net.address import Address

_INTRODUCTION: Final = """\
# Settings

<!-- Written by `scgi config --reference` from the rows in src/scgi/config/settings.py; change it there. -->

Each setting can be given in four ways. The first of these that names it wins; lists are replaced, not
joined:

1. an option of `scgi serve` (`--max-workers 8`), or a keyword of `scgi.serve` (`max_workers=8`);
2. an environment variable (`SCGI_MAX_WORKERS=8`; several values are separated by spaces, with quotes
   where one holds a space; an empty variable counts as not set);
3. the settings file (`max-workers = 8`), in TOML. It is read where `--config FILE` or `SCGI_CONFIG`
   names it, and nowhere else: a `scgi.toml` that happens to lie about changes nothing;
4. the default.

`scgi.serve` reads keywords and, if `config` names one, a file; it does not read the environment. `scgi
config` takes the same options as `scgi serve` and prints the settings that would hold, with the place
each came from; its output is itself a settings file.

Times are seconds, or have a unit: `500ms`, `30s`, `2m`, `1h`. Sizes are bytes, or have a unit of 1024:
`64k`, `1m`, `1g`. Paths that are not absolute start where the command is started, also when `chdir` is
given; only the application's own path starts in `chdir`. Unknown names are errors. In the environment
only those that look like a typing error are, because container platforms put variables such as
`SCGI_PORT` there themselves.
"""


def page() -> str:
    """docs/reference/settings.md, whole."""
    parts = [_INTRODUCTION]
    for section in SECTIONS:
        parts.append(f"\n## {section}\n")
        parts += [_entry(row) for row in ROWS if row.section == section]
    return "".join(parts)


def _entry(row: Row) -> str:
    default = row.default_text or f"`{written(row, getattr(Settings(), row.name))}`"
    repeated = " (repeatable)" if row.collect else ""
    names = [f"`{spelling(row)}`{repeated}"]
    if "environment" in row.sources:
        names.append(f"`{row.variable}`")
    if "file" in row.sources:
        names.append(f"`{row.key}` in the file")
    return f"\n### {row.key}\n\n{row.help}\n\n{' · '.join(names)} · default: {default}\n"


def spelling(row: Row) -> str:
    """The option as it is typed."""
    if row.negatable:
        return f"{row.option}/--no-{row.key}"
    return row.option if row.positional or row.is_flag else f"{row.option} {row.metavar}"


def effective(settings: Settings) -> str:
    """The settings as TOML, each with where it came from; what is unset is a comment."""
    lines, defaults = [], Settings()
    for section in SECTIONS:
        lines.append(f"# {section}")
        for row in ROWS:
            if row.section == section and "file" in row.sources:
                value = getattr(settings, row.name)
                unset = not value and value == getattr(defaults, row.name)
                if unset and row.default_text:
                    line = f"# {row.key}: {row.default_text}"
                else:
                    line = f"{row.key} = {written(row, value)}"
                lines.append(f"{line:<40}  # {settings.source(row.name)}")
        lines.append("")
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def written(row: Row, value: Any) -> str:
    """A value as TOML that reads back as the same value."""
    if row.unit == "octal":
        return f'"{value:04o}"'
    if row.unit == "bytes":
        for letter, factor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
            if value and value % factor == 0:
                return f'"{value // factor}{letter}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if value < 1e6 and float(f"{value:g}") == value else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(written(row, one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_quoted(name)} = {_quoted(one)}' for name, one in value.items())}}}"
    return _quoted(str(value) if isinstance(value, str | Address) else f"{value!r}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # else JSON's are TOML's strings
