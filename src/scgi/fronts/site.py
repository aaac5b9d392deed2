"""What a person wants of a web server, in no server's language; and how its parts are written by people.

The parsers take what somebody typed and raise ValueError with a sentence. Nothing that they let through ends a word,
a line or a comment of a configuration, or begins a variable in one, except in paths of files: those are for the
`quoted` of each web server. Imports `net.address`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scgi.net.address import Address

MEGABYTE: Final = 1 << 20
EVERYWHERE: Final = Address("tcp", "", 80)  # it has no host
_SEGMENTS: Final = re.compile(r"(/[A-Za-z0-9._~@+-]+)*/?")
_LINE_BREAKS: Final = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Site:
    """One application behind one web server. The root is the mount ""; the others are like "/shop"."""

    upstream: tuple[Address, ...]
    mount: tuple[str, ...] = ("",)
    static: tuple[tuple[str, str], ...] = ()  # ("/static/", "/srv/shop/static/")
    max_body: int = 100 * MEGABYTE
    timeout: int = 60  # seconds
    stream: bool = False
    server_name: str = "localhost"
    listen: Address = EVERYWHERE
    name: str = "application"

    @property
    def mounts_by_length(self) -> list[str]:
        """The longer before the shorter, so that the first that fits is the right one."""
        return sorted(self.mount, key=len, reverse=True)

    @property
    def pattern(self) -> str:
        """A regular expression for the mounts."""
        return "|".join(map(re.escape, self.mounts_by_length))

    @property
    def places(self) -> str:
        return ", ".join(mount or "/" for mount in self.mount)


def parse_mount(raw: object) -> str:
    """ "/shop" or "/shop/" as "/shop"; the root as ""."""
    text = str(raw)
    if not text or not _SEGMENTS.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError(f"expected a path such as /shop, of letters, digits and . _ ~ @ + - (or /), got {raw!r}")
    return text.rstrip("/")


def parse_static(raw: object) -> tuple[str, str]:
    """PREFIX=DIR: both end with a slash, the folder is absolute."""
    prefix, _, folder = str(raw).partition("=")
    if not folder or not prefix.strip("/"):
        raise ValueError(f"expected PREFIX=DIR such as /static=/srv/shop/static, got {raw!r}")
    return parse_mount(prefix) + "/", os.path.join(refuse_line_breaks(os.path.abspath(folder)), "")


def _word(pattern: str, expected: str) -> Callable[[object], str]:
    def parse(raw: object) -> str:
        if not re.fullmatch(pattern, str(raw)) or ".." in str(raw):
            raise ValueError(f"expected {expected}, got {raw!r}")
        return str(raw)

    return parse


parse_name: Final = _word("[a-z][a-z0-9-]{0,39}", "a name of small letters, digits and '-' such as shop")
parse_server_name: Final = _word("[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", "a host name such as www.example.org")


def refuse_line_breaks(path: str) -> str:
    if _LINE_BREAKS.search(path):
        raise ValueError(f"a configuration cannot hold a path with control characters, got {path!r}")
    return path


def upstreams(found: list[Address]) -> tuple[Address, ...]:
    """Each once; a relative path counts from where the command was started."""
    asked: list[Address] = []
    for address in found:
        if address.kind == "systemd" or (address.kind == "tcp" and not address.port) or "%" in address.host:
            raise ValueError(f"expected HOST:PORT or unix:PATH, got '{address}'")
        if address.kind == "unix":
            address = Address("unix", path=refuse_line_breaks(os.path.abspath(address.path)))
        if address in asked:
            raise ValueError(f"expected each address once, got {address} twice")
        asked.append(address)
    return tuple(asked)


def consistent(site: Site) -> Site:
    """The same. Raises ValueError if its parts do not go together."""
    for mount in site.mount:
        for prefix, _ in site.static:
            if f"{mount}/".startswith(prefix):
                raise ValueError(f"--mount: {mount} lies below --static {prefix}, where only files are")
    return site
