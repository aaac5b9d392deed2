"""Fills the texts in `templates/`, which read like what they become: `@{name}` is exchanged for a value.

A line that holds nothing but `@{name}` is exchanged for any number of lines. Values are put in as they are.
"""

from __future__ import annotations

import importlib.resources
import re
from typing import Final

_PLACE: Final = re.compile(r"^@\{(\w+)\}\n|@\{(\w+)\}", re.MULTILINE)


def fill(file: str, about: object = None, /, **values: object) -> str:
    """The text of templates/FILE, whole lines; what is not among the values is an attribute of `about`."""
    text = importlib.resources.files(__package__).joinpath("templates", file).read_text("utf-8")

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        lines = str(values[name] if name in values else getattr(about, name)).rstrip("\n")
        return lines + "\n" if found[1] and lines else lines

    return _PLACE.sub(value, text)
