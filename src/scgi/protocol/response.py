"""The CGI response head, built and parsed: RFC 3875 section 6, as web servers really read it.

`build_head` is what every answer of the server goes through, so it is the one place where a response cannot be
split: a control character in a name or value is a `MisuseError`. `Status: NNN Reason` always comes first, never
`HTTP/1.1` (Apache answers 500 to that). `parse_head` gives a `Location` without a status its 302, since Apache takes
a bare one for an internal redirect.

This file knows nothing about sockets; it imports `errors` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple, NoReturn

from scgi.errors import MalformedResponse, MisuseError

REASONS: Final = {status.value: status.phrase for status in HTTPStatus}

# RFC 9110 7.6.1: they speak of one connection, and that one is the web server's business.
HOP_BY_HOP: Final = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer trailers "
    "transfer-encoding upgrade".split()
)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS: Final = re.compile(r"([2-9][0-9]{2})(?: (.*))?\Z")

# What a header name is, by its exact spelling: lower-case name, "" for nothing special. Filled as the application's
# few names are met, and bounded.
_SPECIAL: Final = HOP_BY_HOP | {"content-length", "status"}
_KINDS: dict[str, str] = {}
_STATUS_LINES: dict[str, tuple[int, bool, str]] = {}
_REMEMBERED: Final = 500


# What the sender must know of a head that it has built: its bytes, the status, the Content-Length if there is one, and
# whether no body may follow (204 and 304). A plain tuple: one with names costs as much as a header.
HeadFacts = tuple[bytes, int, int | None, bool]


def status_line(status: str) -> tuple[int, bool, str]:
    """Judge `"404 Not Found"` (or `"404"`) as PEP 3333 has it; returns the code, whether no body may follow (204 and
    304), and the `Status:` line."""
    match = _STATUS.match(status) if isinstance(status, str) else None
    if match is None or _CONTROL.search(status):
        raise MisuseError(f"status: expected text like '200 OK', found {status!r}"[:200], code="bad-status")
    code = int(match[1])
    reason = match[2] or REASONS.get(code) or "Unknown"
    line = (code, code in (204, 304), f"Status: {code} {reason}\r\n")
    if len(_STATUS_LINES) < _REMEMBERED:
        _STATUS_LINES[status] = line
    return line


def _kind(name: str) -> str:
    if not isinstance(name, str):
        raise MisuseError(f"header name: expected str, found {name!r}"[:200], code="bad-header-name")
    if not _TOKEN.match(name):
        raise MisuseError(f"header name: {name!r} is not a token (RFC 9110)"[:200], code="bad-header-name")
    lowered = name.lower()
    kind = lowered if lowered in _SPECIAL else ""
    if len(_KINDS) < _REMEMBERED:
        _KINDS[name] = kind
    return kind


def _refuse_value(name: str, value: object) -> None:
    """Called for a value that is not plainly printable; most that come here are Latin-1 and fine."""
    if not isinstance(value, str):
        raise MisuseError(f"header {name}: expected str, found {value!r}"[:200], code="bad-header-value")
    if match := _CONTROL.search(value):
        raise MisuseError(
            f"header {name}: the control character {match[0]!r} would split or corrupt the response",
            code="control-in-header",
        )


def build_head(status: str, headers: Iterable[tuple[str, str]], length: int | None = None) -> HeadFacts:
    """Build a head from what PEP 3333 calls status and headers.

    `length` is the body's length where the caller knows it (bytes): sent as Content-Length if the application did
    not. Hop-by-hop headers are left out. Raises `MisuseError` for whatever could split, smuggle or confuse.
    """
    try:
        code, bodiless, text = _STATUS_LINES[status]
    except (KeyError, TypeError):
        code, bodiless, text = status_line(status)
    declared: int | None = None
    shown: int | str | None = None
    for name, value in headers:
        try:
            kind = _KINDS[name]
            if not kind and not value.isprintable():
                _refuse_value(name, value)
        except (AttributeError, KeyError, TypeError):
            _refuse_value(name, value)
            kind = _kind(name)
        if not kind:
            text = f"{text}{name}: {value}\r\n"
        elif kind == "content-length":
            if type(value) is not str or not value.isdecimal() or len(value) > 18 or declared is not None:
                _refuse_length(value, declared)
            declared, shown = int(value), value
        elif kind == "status":
            raise MisuseError("header Status: the status has its own argument", code="status-header")
        else:  # hop-by-hop: left out, as a CGI script's harmless `Connection: close` should be
            _refuse_value(name, value)
    if declared is None:
        declared = shown = length
    if declared is None or code == 204:
        text += "\r\n"
    else:
        text = f"{text}Content-Length: {shown}\r\n\r\n"
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise MisuseError(
            f"headers are Latin-1 text (PEP 3333), found {error.object[error.start : error.end]!r}"[:200],
            code="not-latin-1",
        ) from None
    return data, code, declared, bodiless


def _refuse_length(value: object, before: int | None) -> None:
    """Called for what is no small number, or is there again; the same again is fine."""
    _refuse_value("Content-Length", value)
    assert isinstance(value, str)
    if len(value) > 18 or not (value.isascii() and value.isdigit()):
        raise MisuseError(f"Content-Length: expected digits, found {value!r}"[:200], code="bad-content-length")
    if before is not None and before != int(value):
        raise MisuseError(f"Content-Length is there twice: {before} and {value}", code="bad-content-length")


class ResponseHead(NamedTuple):
    """A parsed head: status code, reason, headers in order (Status left out), and where the body starts."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    end: int

    def get(self, name: str) -> str | None:
        """The first value of that header, whatever its case."""
        lowered = name.lower()
        return next((value for key, value in self.headers if key.lower() == lowered), None)


_BLANK: Final = re.compile(rb"\r?\n\r?\n")
_BLANK_FIRST: Final = re.compile(rb"\r?\n")
_NPH: Final = re.compile(r"HTTP/[0-9.]+ +([0-9]{3})(?: +(.*))?\Z")
_PARSED_STATUS: Final = re.compile(r"([1-9][0-9]{2})(?:[ \t]+(.*))?\Z")


def parse_head(data: bytes, limit: int = 65536) -> ResponseHead | None:
    """Parse a CGI response head: lines end with CRLF or LF, a blank line ends it, a status line of HTTP is taken too.

    Returns None when more is needed. Raises `MalformedResponse` for what cannot be a head: more than `limit` bytes,
    NUL or a bare CR, a line without a colon, a name that is not a token, a status that is not three digits. What it
    says never depends on how much of the body is there already.
    """
    if _BLANK_FIRST.match(data):
        _malformed("the response begins with a blank line: there is no head", "no-head")
    match = _BLANK.search(data, 0, limit)
    if match is None:
        if len(data) >= limit:
            _malformed(f"no end of the head within {limit} bytes", "head-too-large")
        if 0 in data:
            _malformed("NUL in the head", "control-in-header")
        return None
    status, reason, headers = 0, "", []
    for number, line in enumerate(data[: match.start()].decode("latin-1").split("\n")):
        text = line.removesuffix("\r")
        if _CONTROL.search(text):
            _malformed(f"control character in {text[:80]!r}", "control-in-header")
        if number == 0 and (nph := _NPH.match(text)):
            status, reason = int(nph[1]), nph[2] or ""
            continue
        name, colon, value = text.partition(":")
        value = value.strip(" \t")
        if not colon:
            _malformed(f"expected 'Name: value', found {text[:80]!r}", "no-colon")
        if not _TOKEN.match(name):
            _malformed(f"expected a header's name, found {name[:80]!r}", "bad-name")
        if name.lower() != "status":
            headers.append((name, value))
        elif given := _PARSED_STATUS.match(value):
            status, reason = int(given[1]), given[2] or ""
        else:
            _malformed(f"Status: expected three digits, found {value[:80]!r}", "bad-status")
    if not status:
        moved = any(name.lower() == "location" for name, _ in headers)
        status = 302 if moved else 200
    return ResponseHead(status, reason or REASONS.get(status, "Unknown"), headers, match.end())


def _malformed(sentence: str, code: str) -> NoReturn:
    raise MalformedResponse(sentence, code=code)


def error_page(status: int, sentence: str = "") -> bytes:
    """A whole small answer in plain text, for errors that the application has no part in."""
    reason = REASONS[status]
    body = f"{status} {reason}\n{sentence and sentence + chr(10)}".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    return build_head(f"{status} {reason}", headers, len(body))[0] + body
