"""The SCGI request head: one set of rules, judged once, for server, gateway and client.

A request is a netstring of NUL-terminated names and values, then the body
(https://python.ca/scgi/protocol.txt)::

    70:CONTENT_LENGTH\\0 27\\0 SCGI\\0 1\\0 REQUEST_METHOD\\0 POST\\0 REQUEST_URI\\0 /deepthought\\0 ,BODY

`head_parser` makes what judges bytes that are all there (the server's hot path: one `read` brings a whole request);
`RequestReader` collects bytes that trickle and hands them to the same. What is refused, dropped
or joined is written down there, once.

This file knows nothing about sockets; it imports `errors` only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

from scgi.errors import LimitExceeded, MalformedRequest, MisuseError, TruncatedRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a request is read at all. Sizes in bytes."""

    head: int = 1 << 20  # Apache passes 775,869 by default; nginx 32 KiB; lighttpd 64 KiB
    variables: int = 2000  # Apache allows 100 header fields, nginx some thousands
    body: int = 1 << 30  # nginx: client_max_body_size 1m by default; Apache 1 GiB


DEFAULT_LIMITS: Final = Limits()


class Head(NamedTuple):
    """A request's variables (Latin-1 text), its body's length and where the body starts in the bytes given."""

    variables: dict[str, str]
    content_length: int
    end: int


HeadParser = Callable[[bytes], tuple[dict[str, Any], int, int] | None]  # plain tuples: they cost a tenth

# The length's own digits: a number this long is beyond any limit, whatever follows.
_MAX_LENGTH_DIGITS: Final = 20
_LENGTH_SO_FAR: Final = re.compile(rb"(?:0|[1-9][0-9]{0,%d})?" % (_MAX_LENGTH_DIGITS - 1))
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+\Z")
_RESERVED: Final = ("wsgi.", "scgi.")  # keys that only the server sets in what an application is given

# How a request of so many bytes begins, up to its first NUL, if it is a head and nothing else: to compare costs a third
# of reading a number. (No head makes a request of 1,005 bytes: there stands what comes before no NUL.)
_BEGINNINGS: Final = ["\0"] * 4096
for _size in range(1, len(_BEGINNINGS) - 6):
    _BEGINNINGS[len(b"%d:," % _size) + _size] = f"{_size}:CONTENT_LENGTH"

# Names that need no look: every one that web servers send of themselves, and the usual headers of browsers.
# Anything else is looked at.
_FAMILIAR: Final = frozenset(
    """CONTENT_LENGTH SCGI REQUEST_METHOD REQUEST_URI QUERY_STRING CONTENT_TYPE DOCUMENT_URI DOCUMENT_ROOT
    SERVER_PROTOCOL REQUEST_SCHEME HTTPS REMOTE_ADDR REMOTE_PORT REMOTE_USER REMOTE_HOST REMOTE_IDENT AUTH_TYPE
    SERVER_PORT SERVER_NAME SERVER_ADDR SERVER_SOFTWARE SERVER_SIGNATURE SERVER_ADMIN GATEWAY_INTERFACE
    SCRIPT_NAME SCRIPT_FILENAME PATH_INFO PATH_TRANSLATED REDIRECT_STATUS REDIRECT_URI CONTEXT_PREFIX
    CONTEXT_DOCUMENT_ROOT PATH UNIQUE_ID
    HTTP_HOST HTTP_CONNECTION HTTP_COOKIE HTTP_USER_AGENT HTTP_ACCEPT HTTP_ACCEPT_LANGUAGE HTTP_ACCEPT_ENCODING
    HTTP_ACCEPT_CHARSET HTTP_REFERER HTTP_ORIGIN HTTP_CACHE_CONTROL HTTP_PRAGMA HTTP_DNT HTTP_TE HTTP_VIA
    HTTP_AUTHORIZATION HTTP_RANGE HTTP_IF_RANGE HTTP_IF_MATCH HTTP_IF_NONE_MATCH HTTP_IF_MODIFIED_SINCE
    HTTP_IF_UNMODIFIED_SINCE HTTP_EXPECT HTTP_FORWARDED HTTP_X_FORWARDED_FOR HTTP_X_FORWARDED_PROTO
    HTTP_X_FORWARDED_HOST HTTP_X_FORWARDED_PORT HTTP_X_REAL_IP HTTP_X_REQUEST_ID HTTP_X_REQUESTED_WITH
    HTTP_UPGRADE HTTP_UPGRADE_INSECURE_REQUESTS HTTP_PRIORITY HTTP_SEC_FETCH_DEST HTTP_SEC_FETCH_MODE
    HTTP_SEC_FETCH_SITE HTTP_SEC_FETCH_USER HTTP_SEC_CH_UA HTTP_SEC_CH_UA_MOBILE HTTP_SEC_CH_UA_PLATFORM
    HTTP_SEC_GPC HTTP_KEEP_ALIVE HTTP_PROXY_CONNECTION""".split()
)

# The objects by which everybody looks for these: a dictionary finds them without comparing any text.
_CANONICAL: Final = {name: sys.intern(name) for name in _FAMILIAR}
_MOST_ALIKE: Final = 100  # variables of requests that are compared with the last one

# Never shown to an application. HTTP_PROXY: "httpoxy" (CVE-2016-5385), a client would choose the proxy of the
# application's own requests. The rest are echoes of framing that the web server has already dealt with
# (nginx sends HTTP_TRANSFER_ENCODING beside a body that it has decoded: Werkzeug then reads nothing).
_WITHHELD: Final = frozenset(("HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"))


def parse_head(data: bytes, limits: Limits = DEFAULT_LIMITS, require_scgi: bool = True) -> Head | None:
    """Parse the head of the request that `data` begins with; what `head_parser` makes, for those who ask but once."""
    found = head_parser(limits, require_scgi)(data)
    return None if found is None else Head(*found)


def head_parser(limits: Limits, require_scgi: bool, base: Mapping[str, Any] | None = None) -> HeadParser:
    """Make what judges heads: bytes → (variables, length of the body, where it begins).

    It returns None when the bytes end before the head does (feed me more). It raises `MalformedRequest` or
    `LimitExceeded`; the body's length is judged too, before any of it is read. The variables are those of `base` (which
    no request can set) and the request's. `require_scgi=False` accepts requests without the SCGI variable (nginx
    without scgi_params).
    """
    base = dict(base or {})
    known = len(base)
    familiar = _FAMILIAR | base.keys()
    all_familiar = familiar.issuperset
    most = 2 * limits.variables + 1
    beginnings = _BEGINNINGS if limits.head >= len(_BEGINNINGS) else []
    common = len(beginnings)

    # Of requests with so many variables, the last list of names that was good and came twice in a row, and a copier of
    # what it makes of a request but for the values. Most requests are like one just before: then nothing is left to be
    # judged about their names, nor to be hashed. Nobody can fill this memory, or do more than make it useless.
    alike: dict[int, tuple[list[str], Callable[[], dict[str, Any]]]] = {}
    once: dict[int, list[str]] = {}
    unknown: tuple[list[str], Callable[[], dict[str, Any]]] = [], dict

    def remember(given: list[str]) -> None:
        count = len(given)
        if count > _MOST_ALIKE:
            return
        if once.get(count) == given:
            names = [_CANONICAL.get(name, name) for name in given]
            alike[count] = names, (base | dict.fromkeys(names)).copy
        else:
            once[count] = given

    def parse(data: bytes) -> tuple[dict[str, Any], int, int] | None:
        end = len(data)
        is_head = False  # and nothing else, as nearly every request is
        if 0 < end < common and data[-1] == 44:
            text = data.decode("latin-1")
            items = text.split("\0", most)
            if items[0] == beginnings[end] and items.pop() == "," and not len(items) & 1:
                items[0] = "CONTENT_LENGTH"
                is_head = True
        if not is_head:
            found = _find_head(data, limits)
            if found is None:
                return None
            start, end = found
            text = data[start : end - 1].decode("latin-1")
            items = text.split("\0", most)
            if items[0] != "CONTENT_LENGTH" or items.pop() or len(items) & 1:
                _refuse_form(text, limits)
        # The rules, each once: whole-block tests first, a closer look only where they find something.
        if "\n" in text or "\r" in text:
            _refuse_line_breaks(items)
        given, values = items[::2], items[1::2]
        names, copy = alike.get(len(given), unknown)
        if given == names:
            variables = copy()
            variables.update(zip(names, values))  # noqa: B905 (an even count, as we know)
        else:
            variables = base.copy()
            variables.update(zip(given, values))  # noqa: B905
            if len(variables) - known != len(given):  # a name is there twice, or is one of the server's own
                variables = base | _judge_names(_join(items), _FAMILIAR)
            elif not all_familiar(variables) and len(_judge_names(variables, familiar)) - known != len(given):
                pass  # some were taken out
            elif end < len(_BEGINNINGS):
                remember(given)
        length = 0
        if values[0] != "0":
            length = _content_length(values[0], limits)
            variables["CONTENT_LENGTH"] = values[0] or "0"
        try:
            if variables["SCGI"] != "1":
                _refuse_scgi(variables, require_scgi)
        except KeyError:
            _refuse_scgi(variables, require_scgi)
        return variables, length, end

    return parse


def _find_head(data: bytes, limits: Limits) -> tuple[int, int] | None:
    """Where the head begins, and where what follows it does; None if it is not all there."""
    start = data.find(b":", 0, _MAX_LENGTH_DIGITS + 1) + 1
    digits = data[: start - 1] if start else b""
    if not digits.isdigit() or digits[0] == 48:  # 48 is "0": no zero-padded and no empty head
        _check_start(data)
        return None
    size = int(digits)
    if size > limits.head:
        raise LimitExceeded(f"the head is {size} bytes, the limit is {limits.head}", code="head-too-large")
    comma = start + size
    if len(data) <= comma:
        return None
    if data[comma] != 44:
        raise MalformedRequest(
            f"expected ',' after a head of {size} bytes, found {data[comma : comma + 1]!r}", code="no-comma"
        )
    return start, comma + 1


def _check_start(data: bytes) -> None:
    """What does not begin with digits and a colon: fine if still incomplete, otherwise too long or wrong."""
    if data.startswith(b"0:"):
        raise MalformedRequest("the head is empty: expected CONTENT_LENGTH first", code="head-empty")
    good = _LENGTH_SO_FAR.match(data).end()  # type: ignore[union-attr]  # it matches the empty string too
    if good == len(data):
        return
    if good == _MAX_LENGTH_DIGITS and data[good : good + 1].isdigit():
        raise LimitExceeded("the head's length has more digits than any limit", code="head-too-large")
    raise MalformedRequest(
        f"expected the length of a netstring (digits, then ':'), found {data[: good + 1]!r}", code="length-not-digits"
    )


def _refuse_form(text: str, limits: Limits) -> NoReturn:
    """It is no list of names and values that begins with CONTENT_LENGTH: say what it is."""
    count = (text.count("\0") + 1) // 2
    if count > limits.variables:
        raise LimitExceeded(f"{count} variables, the limit is {limits.variables}", code="too-many-variables")
    items = text.split("\0")
    if items.pop():
        raise MalformedRequest("the head does not end with NUL", code="head-not-terminated")
    if len(items) % 2:
        raise MalformedRequest(f"the name {items[-1][:80]!r} has no value", code="odd-items")
    found = items[0][:80] if items else ""
    raise MalformedRequest(
        f"expected CONTENT_LENGTH as the first variable, found {found!r}", code="content-length-not-first"
    )


def _join(items: list[str]) -> dict[str, str]:
    """Variables of which some are repeated.

    HTTP_* are joined as RFC 9110 5.3 has it, cookies as RFC 6265 has it: nginx before 1.23 sends them apart.
    Any other repetition is refused: which one counts would be a guess.
    """
    joined: dict[str, list[str]] = {}
    for name, value in zip(items[::2], items[1::2], strict=True):
        if name in joined and not name.startswith("HTTP_"):
            raise MalformedRequest(f"the variable {name[:80]!r} is there twice", code="repeated-name")
        joined.setdefault(name, []).append(value)
    return {name: ("; " if name == "HTTP_COOKIE" else ", ").join(values) for name, values in joined.items()}


def _refuse_line_breaks(items: list[str]) -> None:
    """No header has one; a path may (`%0A` is legal)."""
    for name, value in zip(items[::2], items[1::2], strict=True):
        if name.startswith("HTTP_") and ("\n" in value or "\r" in value):
            raise MalformedRequest(f"the value of {name[:80]!r} holds a line break", code="line-break-in-header")


def _judge_names(variables: dict[str, str], familiar: frozenset[str]) -> dict[str, str]:
    """Look at each name that is not familiar: keep it, take its variable out, or refuse the request."""
    for name in [name for name in variables if name not in familiar]:
        if name.startswith("HTTP_"):
            if name.upper() in _WITHHELD or not _NAME.match(name):
                del variables[name]
        elif not _NAME.match(name):
            raise MalformedRequest(f"the variable name {name[:80]!r} is not allowed", code="bad-name")
        elif name.startswith(_RESERVED):
            raise MalformedRequest(f"the variable name {name[:80]!r} is reserved", code="reserved-name")
    return variables


def _content_length(value: str, limits: Limits) -> int:
    if not value:  # cgi2scgi under a CGI server that sets it so
        return 0
    if not (value.isascii() and value.isdigit()):
        raise MalformedRequest(
            f"CONTENT_LENGTH: expected digits, found {value[:40]!r}", code="content-length-not-digits"
        )
    if len(value) > _MAX_LENGTH_DIGITS or (length := int(value)) > limits.body:
        raise LimitExceeded(
            f"the body is {value[:40]} bytes, the limit is {limits.body}", code="body-too-large", status_hint=413
        )
    return length


def _refuse_scgi(variables: dict[str, str], require_scgi: bool) -> None:
    if "SCGI" in variables:
        raise MalformedRequest(f"SCGI: expected '1', found {variables['SCGI'][:40]!r}", code="scgi-not-1")
    if require_scgi:
        raise MalformedRequest(
            "the variable SCGI is missing: in nginx 'include scgi_params', or accept it so with --no-require-scgi",
            code="scgi-missing",
        )


class RequestReader:
    """Collects a request that trickles in; what it says never depends on how the bytes were split.

    `feed` returns the `Head` once it is complete (then `rest` holds what followed it so far), None before.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, require_scgi: bool = True) -> None:
        self._limits = limits
        self._require_scgi = require_scgi
        self._received = bytearray()
        self._wanted = 0  # no use to look again before so many bytes are here
        self.rest = b""

    def feed(self, data: bytes) -> Head | None:
        self._received += data
        if len(self._received) < self._wanted:
            return None
        received = bytes(self._received)
        head = parse_head(received, self._limits, self._require_scgi)
        if head is not None:
            self.rest = received[head.end :]
        elif b":" in received[: _MAX_LENGTH_DIGITS + 1]:
            digits, _, _ = received.partition(b":")
            self._wanted = len(digits) + 1 + int(digits) + 1
        return head

    def eof(self) -> NoReturn:
        """The peer closed before the head was complete."""
        raise TruncatedRequest(
            f"the request ended after {len(self._received)} bytes, in the middle of its head"
            + (f" (expected {self._wanted} bytes)" if self._wanted else ""),
            code="head-truncated",
        )

    @property
    def received(self) -> int:
        """Bytes so far."""
        return len(self._received)


def build_head(variables: Iterable[tuple[str, str]], content_length: int) -> bytes:
    """The head's bytes: CONTENT_LENGTH first, SCGI second, then `variables` in their order.

    Raises `MisuseError` for what `parse_head` would refuse, drop or join: what is built is what arrives. (Names that
    are kept from applications may be sent: that is the receiver's affair.)
    """
    if content_length < 0:
        raise MisuseError(f"expected the body's length, found {content_length}", code="bad-content-length")
    items = ["CONTENT_LENGTH", str(content_length), "SCGI", "1"]
    seen = {"CONTENT_LENGTH", "SCGI"}
    for name, value in variables:
        if name in seen:
            raise MisuseError(f"the variable {name} is there twice", code="repeated-name")
        if not _NAME.match(name) or name.startswith(_RESERVED):
            raise MisuseError(f"the variable name {name[:80]!r} is not allowed", code="bad-name")
        if "\0" in value or (name.startswith("HTTP_") and ("\n" in value or "\r" in value)):
            raise MisuseError(f"the value of {name} holds NUL or a line break: {value[:80]!r}", code="bad-value")
        seen.add(name)
        items += (name, value)
    try:
        block = ("\0".join(items) + "\0").encode("latin-1")
    except UnicodeEncodeError as error:
        raise MisuseError(
            f"variables are Latin-1 text (bytes), found {error.object[error.start : error.end][:80]!r}",
            code="not-latin-1",
        ) from None
    return b"%d:%b," % (len(block), block)
