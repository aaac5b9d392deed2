"""Which web server it is, which line of its configuration to change, and what cannot be had of it at all.

The lines are in `advice.toml`, those that `scgi config` prints. Knows strings only.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping
from typing import Any


class Advice:
    def __init__(self, front: str) -> None:
        text = importlib.resources.files(__package__).joinpath("advice.toml").read_text("utf-8")
        self._front, self._lines = front, dict[str, Any](tomllib.loads(text))

    def line(self, point: str, values: Mapping[str, object]) -> str:
        """The line to change; "" where none is known."""
        return str(self._lines.get(point, {}).get(self._front, "")).format_map(values)

    @property
    def name(self) -> str:
        return str(self._lines["names"].get(self._front, "a web server that does not say which"))

    def limit(self, point: str) -> str:
        """Why no line changes this; "" if one might."""
        return str(self._lines["limits"].get(f"{self._front} {point}", ""))


def recognise(variables: Mapping[str, str], server: str) -> str:
    """Which web server it is, by what it sends; `server` is the header of that name in its answer."""
    software = f"{variables.get('SERVER_SOFTWARE', '')} {server}".lower()
    if "apache" in software or "SERVER_SIGNATURE" in variables:
        return "apache" if variables.get("SCRIPT_FILENAME", "").startswith("proxy:") else "mod_scgi"
    if "lighttpd" in software or "REDIRECT_STATUS" in variables:
        return "lighttpd"
    return "nginx" if "nginx" in software or "DOCUMENT_URI" in variables else ""
