"""Parsers of setting values: each takes what a person wrote and returns the value.

What they get is text (command line, environment) or what TOML and Python have besides text: numbers, yes and
no. What they cannot read raises ValueError with a sentence that says what was expected and what was found;
the caller knows where. Imports `net.address` and `errors`.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable
from typing import NoReturn

from scgi.errors import ConfigError
from scgi.net.address import Address, parse_address

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?\Z")
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmg])(?:i?b)?)?\Z", re.IGNORECASE)
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


def refuse(expected: str, raw: object) -> NoReturn:
    raise ValueError(f"expected {expected}, got {raw!r}")


def whole(at_least: int) -> Callable[[object], int]:
    def parse(raw: object) -> int:
        found = raw
        if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,18}", raw.strip(), re.ASCII):
            found = int(raw)
        if type(found) is not int or found < at_least:
            refuse(f"a whole number of at least {at_least}", raw)
        return found

    return parse


def duration(*, zero: bool) -> Callable[[object], float]:
    """Seconds: 30, 1.5, 30s, 2m, 500ms, 1h."""
    expected = f"a time of {'0 seconds or more' if zero else 'more than 0 seconds'} (30, 1.5, 30s, 2m)"

    def parse(raw: object) -> float:
        seconds = math.nan
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            seconds = float(raw)
        elif isinstance(raw, str) and (found := _DURATION.match(raw.strip())):
            seconds = float(found[1]) * _SECONDS[found[2]]
        if not (math.isfinite(seconds) and (seconds > 0 or (zero and seconds == 0))):
            refuse(expected, raw)
        return seconds

    return parse


def size(at_least: int) -> Callable[[object], int]:
    """Bytes: 65536, 64k, 1m, 1g; the letters are powers of 1024."""

    def parse(raw: object) -> int:
        count = -1
        if type(raw) is int:
            count = raw
        elif isinstance(raw, str) and (found := _SIZE.match(raw.strip())):
            count = int(float(found[1]) * _BYTES[(found[2] or "").lower()])
        if count < at_least:
            refuse(f"a size of at least {at_least} bytes (65536, 64k, 1m, 1g)", raw)
        return count

    return parse


def choice(*words: str) -> Callable[[object], str]:
    def parse(raw: object) -> str:
        if raw not in words:
            refuse(f"{', '.join(words[:-1])} or {words[-1]}", raw)
        return str(raw)

    return parse


def flag(raw: object) -> bool:
    word = str(raw).strip().lower()  # True and False of TOML and Python too
    if word not in _YES + _NO:
        refuse("yes or no", raw)
    return word in _YES


def path(raw: object) -> str:
    """An absolute path; a relative one counts from where the command was started, not from `chdir`."""
    text = os.fspath(raw) if isinstance(raw, os.PathLike) else raw
    if not isinstance(text, str) or "\0" in text:
        refuse("a path", raw)
    return os.path.abspath(text) if text else ""


def path_or_stdout(raw: object) -> str:
    """A path, or "-" for standard output."""
    return "-" if raw == "-" else path(raw)


def path_or_stderr(raw: object) -> str:
    """A path; "-" is the default, standard error."""
    return "" if raw == "-" else path(raw)


def address(raw: object) -> Address:
    if isinstance(raw, Address):
        return raw
    text = str(raw) if type(raw) is int else raw
    if not isinstance(text, str):
        refuse("an address", raw)
    try:
        return parse_address(text)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("address: ")) from None


def optional_address(raw: object) -> Address | None:
    return None if raw == "" else address(raw)


def addresses(found: list[Address]) -> tuple[Address, ...]:
    if not found:
        raise ValueError("expected at least one address, got none")
    for one in found:
        if found.count(one) > 1:
            raise ValueError(f"expected each address once, got {one} twice")
    return tuple(found)


def mount(raw: object) -> str:
    """Where the application is mounted, as "/app"; the root is ""."""
    if not isinstance(raw, str) or not re.fullmatch(r"(/[^\x00-\x20\x7f?#/]+)*/?", raw):
        refuse("a path such as /app (or / for the root)", raw)
    return raw.rstrip("/")


def octal(raw: object) -> int:
    """A file mode. Text is octal; a number (0o660 in TOML and Python) is what it is."""
    mode = raw
    if isinstance(raw, str) and re.fullmatch(r"(0o)?[0-7]{1,5}", raw.strip()):
        mode = int(raw.strip(), 8)
    if type(mode) is not int or not 0 <= mode <= 0o777:
        refuse("an octal mode from 0 to 0777 ('0660', or 0o660 as a number)", raw)
    return mode


def word(expected: str) -> Callable[[object], str]:
    """One word: a user, a group."""

    def parse(raw: object) -> str:
        text = str(raw) if type(raw) is int else raw
        if not isinstance(text, str) or not re.fullmatch(r"[^\s:\x00]*", text):
            refuse(expected, raw)
        return text

    return parse


def owner(raw: object) -> str:
    """USER, USER:GROUP or :GROUP."""
    if not isinstance(raw, str) or not re.fullmatch(r"[^\s:\x00]*(:[^\s:\x00]+)?", raw):
        refuse("USER, USER:GROUP or :GROUP", raw)
    return raw


def network(raw: object) -> str:
    """A network or a single machine, or "any"."""
    if raw == "any":
        return "any"
    try:
        return str(ipaddress.ip_network(raw, strict=False)) if isinstance(raw, str) else refuse("", raw)
    except ValueError:
        refuse("a network such as 10.0.0.0/8, an IP address, or any", raw)


def probe(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"(/[^\x00-\x20\x7f#]*)?", raw):
        refuse("a path such as /health", raw)
    return raw


def control(raw: object) -> str:
    """A path, or "none"."""
    return "none" if raw == "none" else path(raw)


def rlimit(raw: object) -> tuple[str, str]:
    """NAME=VALUE or NAME=SOFT:HARD; the names are setrlimit(2)'s, in small letters without RLIMIT_."""
    name, _, value = raw.partition("=") if isinstance(raw, str) else ("", "", "")
    name = name.strip().lower().removeprefix("rlimit_")
    if not re.fullmatch(r"[a-z]+", name) or not all(map(_is_limit, value.split(":", 1))):
        refuse("NAME=VALUE or NAME=SOFT:HARD, such as nofile=1024 or as=2g", raw)
    return name, value.strip().lower()


def _is_limit(text: str) -> bool:
    return text.strip().lower() == "unlimited" or _SIZE.match(text.strip()) is not None


def limits(text: str) -> tuple[int, int]:
    """(soft, hard) of a value that `rlimit` has accepted; -1 is unlimited. One value sets both."""
    soft, _, hard = text.partition(":")
    return _limit(soft), _limit(hard or soft)


def _limit(text: str) -> int:
    return -1 if text.strip() == "unlimited" else size(0)(text)


def assignment(raw: object) -> tuple[str, str]:
    """NAME=VALUE for the environment."""
    name, equals, value = raw.partition("=") if isinstance(raw, str) else ("", "", "")
    if not name.strip() or not equals or "\0" in name + value:
        refuse("NAME=VALUE", raw)
    return name, value


def application(raw: object) -> object:
    """The application's name; from Python also the application itself."""
    if isinstance(raw, str) and raw.strip() and "\0" not in raw:
        return raw
    if isinstance(raw, type) or callable(raw):
        return raw
    refuse("module:attribute, module:factory() or path/to/file.py", raw)
