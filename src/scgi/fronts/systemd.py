"""Two units for systemd: the socket, which waits for the application, and the service behind it.

templates/service.unit and templates/socket.unit are the text; docs/how-to/systemd.md says what each line is for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from scgi.fronts.site import refuse_line_breaks
from scgi.fronts.template import fill
from scgi.net.address import Address

UNITS: Final = ("socket", "service")
_WORD: Final = re.compile(r"[A-Za-z0-9_./:@+,=~-]+")


@dataclass(frozen=True, slots=True)
class Service:
    """What systemd has to know: `app` as `scgi serve` takes it, found from `directory`, which holds a .venv."""

    upstream: tuple[Address, ...]
    name: str = "application"
    app: str = "application.py"
    directory: str = ""
    max_body: int = 0  # options of `scgi serve`; 0: its own default
    timeout: int = 0


def unit(service: Service, kind: str) -> str:
    """The whole file `NAME.kind`. Raises ValueError with a sentence for what a unit has no words for."""
    folder = service.directory or f"/srv/{service.name}"
    limits = {"--max-body": service.max_body, "--timeout": service.timeout}
    options = [f"{option} {value}" for option, value in limits.items() if value]
    return fill(
        f"{kind}.unit",
        service,
        title=service.name.capitalize(),
        folder=_path(folder),
        search=_quoted(f"PATH={_path(folder)}/.venv/bin:/usr/local/bin:/usr/bin:/bin", dollar="$"),
        serve=" ".join(["scgi serve", *options, _quoted(_specifiers(refuse_line_breaks(service.app)))]),
        control=_quoted(_specifiers(str(service.upstream[0]))),
        sockets="\n".join(f"ListenStream={_path(one.path or str(one))}" for one in service.upstream),
    )


def _path(path: str) -> str:
    if path != path.strip() or path.endswith("\\"):
        raise ValueError(f"systemd cannot be told of a path with a space or a backslash at its end, got {path!r}")
    return _specifiers(path)


def _specifiers(text: str) -> str:
    return refuse_line_breaks(text).replace("%", "%%")


def _quoted(word: str, dollar: str = "$$") -> str:
    """One word: a backslash begins an escape there, and in command lines `$` a variable."""
    if _WORD.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", dollar)
    return f'"{escaped}"'
