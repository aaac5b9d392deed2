"""The head of a CGI response as our client and gateway read it; the cases are those of FRONTS: what web servers take.

Each is fed whole, by single bytes and with a tail.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgi.errors import MalformedResponse
from scgi.protocol.response import ResponseHead, parse_head

Headers = list[tuple[str, str]]
BODY = b"<p>\r\n\r\nStatus: 500 No\r\n\r\n\0\xff"


def outcome(data: bytes, limit: int = 65536) -> ResponseHead | str | None:
    """The head, the code of the refusal, or None."""
    try:
        return parse_head(data, limit)
    except MalformedResponse as error:
        assert error.status_hint == 502
        return error.code


def decided(data: bytes, limit: int = 65536) -> ResponseHead | str | None:
    """The first outcome that is not None when the bytes come one by one."""
    return next((found for size in range(len(data) + 1) if (found := outcome(data[:size], limit)) is not None), None)


# the whole head → status, reason, headers
UNDERSTOOD: dict[str, tuple[bytes, int, str, Headers]] = {
    "usual": (b"Status: 200 OK\r\nContent-Type: text/html\r\n\r\n", 200, "OK", [("Content-Type", "text/html")]),
    "no-status": (b"Content-Type: a/b\r\n\r\n", 200, "OK", [("Content-Type", "a/b")]),
    "status-last": (b"X: y\r\nStatus: 404 Gone fishing\r\n\r\n", 404, "Gone fishing", [("X", "y")]),
    "status-without-reason": (b"Status: 404\r\n\r\n", 404, "Not Found", []),
    "status-with-blank-reason": (b"Status: 404 \r\n\r\n", 404, "Not Found", []),
    "status-unknown": (b"Status: 299\r\n\r\n", 299, "Unknown", []),
    "status-in-another-case": (b"STATUS: 503 Busy\r\n\r\n", 503, "Busy", []),
    "status-without-a-space": (b"Status:201 Made\r\n\r\n", 201, "Made", []),
    "status-twice": (b"Status: 200 OK\r\nStatus: 500 Oh\r\n\r\n", 500, "Oh", []),
    "lf-only": (b"Status: 200 OK\nX: y\n\n", 200, "OK", [("X", "y")]),
    "mixed": (b"Status: 200 OK\r\nX: y\nZ: w\r\n\n", 200, "OK", [("X", "y"), ("Z", "w")]),
    "mixed-the-other-way": (b"Status: 200 OK\nX: y\n\r\n", 200, "OK", [("X", "y")]),
    "location-absolute": (b"Location: http://a/b\r\n\r\n", 302, "Found", [("Location", "http://a/b")]),
    "location-path": (b"location: /b\n\n", 302, "Found", [("location", "/b")]),
    "location-with-200": (b"Status: 200 OK\r\nLocation: /b\r\n\r\n", 200, "OK", [("Location", "/b")]),
    "location-with-201": (b"Location: /b\r\nStatus: 201 Created\r\n\r\n", 201, "Created", [("Location", "/b")]),
    "nph": (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", 200, "OK", [("X", "y")]),
    "nph-without-reason": (b"HTTP/1.0 404\r\n\r\n", 404, "Not Found", []),
    "nph-then-status": (b"HTTP/1.1 200 OK\r\nStatus: 404 Away\r\n\r\n", 404, "Away", []),
    "duplicates-stay-apart": (b"Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n", 200, "OK",
                              [("Set-Cookie", "a"), ("Set-Cookie", "b")]),
    "two-content-types": (b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 200, "OK",
                          [("Content-Type", "a/b"), ("Content-Type", "c/d")]),
    "not-ascii": (b"X: caf\xc3\xa9 \xff\r\n\r\n", 200, "OK", [("X", "caf\xc3\xa9 \xff")]),
    "empty-value": (b"X:\r\nY: \r\n\r\n", 200, "OK", [("X", ""), ("Y", "")]),
    "spaces-around": (b"X: \t y z \t\r\n\r\n", 200, "OK", [("X", "y z")]),
    "colon-in-value": (b"X: a:b: c\r\n\r\n", 200, "OK", [("X", "a:b: c")]),
    "tab-in-value": (b"X: a\tb\r\n\r\n", 200, "OK", [("X", "a\tb")]),
    "hundred-headers": (b"X-A: b\r\n" * 100 + b"\r\n", 200, "OK", [("X-A", "b")] * 100),
    "interim": (b"Status: 103 Early Hints\r\nLink: x\r\n\r\n", 103, "Early Hints", [("Link", "x")]),
}  # fmt: skip

REFUSED: dict[str, tuple[bytes, str]] = {
    "status-is-a-word": (b"Status: abc\r\n\r\n", "bad-status"),
    "status-is-empty": (b"Status:\r\n\r\n", "bad-status"),
    "status-of-two-digits": (b"Status: 20 OK\r\n\r\n", "bad-status"),
    "status-of-four-digits": (b"Status: 2000 OK\r\n\r\n", "bad-status"),
    "status-with-sign": (b"Status: +200 OK\r\n\r\n", "bad-status"),
    "status-of-latin-1-digits": (b"Status: \xb2\xb2\xb2 OK\r\n\r\n", "bad-status"),
    "begins-with-a-blank-line": (b"\r\nbody\r\n\r\n", "no-head"),
    "begins-with-a-blank-lf": (b"\n\n", "no-head"),
    "cr-only": (b"Status: 200 OK\rX: y\r\r\n\r\n", "control-in-header"),
    "bare-cr-in-value": (b"X: a\rb\r\n\r\n", "control-in-header"),
    "nul-in-value": (b"X: a\0b\r\n\r\n", "control-in-header"),
    "nul-in-name": (b"X\0: a\r\n\r\n", "control-in-header"),
    "control-in-value": (b"X: a\x1bb\r\n\r\n", "control-in-header"),
    "control-in-the-status-line": (b"HTTP/1.1 200 O\x1bK\r\n\r\n", "control-in-header"),
    "no-colon": (b"Status: 200 OK\r\nhello\r\n\r\n", "no-colon"),
    "body-without-headers": (b"<html>hello</html>\n\n", "no-colon"),
    "folded": (b"X: a\r\n b: c\r\n\r\n", "bad-name"),
    "folded-without-colon": (b"X: a\r\n\tb\r\n\r\n", "no-colon"),
    "space-before-colon": (b"X : a\r\n\r\n", "bad-name"),
    "no-name": (b": a\r\n\r\n", "bad-name"),
    "name-not-ascii": (b"N\xe4me: a\r\n\r\n", "bad-name"),
    "status-line-late": (b"X: y\r\nHTTP/1.1 200 OK\r\n\r\n", "no-colon"),
    "status-line-of-words": (b"HTTP/1.1 fine\r\n\r\n", "no-colon"),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_what_web_servers_take_is_understood(case: str) -> None:
    data, status, reason, headers = UNDERSTOOD[case]
    expected = ResponseHead(status, reason, headers, len(data))
    assert outcome(data) == expected
    assert outcome(data + BODY) == expected
    assert decided(data + BODY) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_head_is_refused_with_its_code(case: str) -> None:
    data, code = REFUSED[case]
    assert outcome(data) == code
    assert outcome(data + BODY) == code
    assert decided(data + BODY) == code


def test_a_head_may_be_as_long_as_the_limit() -> None:
    head = b"X: " + b"y" * 90 + b"\r\n\r\n"
    for data in (head, head + BODY):
        assert isinstance(outcome(data, len(head)), ResponseHead)
        assert isinstance(decided(data, len(head)), ResponseHead)
        assert outcome(data, len(head) - 1) == decided(data, len(head) - 1) == "head-too-large"


@pytest.mark.parametrize("data", [b"", b"Status: 200 OK", b"X: y\r\n", b"X: y\r\n\r", b"\r", b"y" * 65535])
def test_an_unfinished_head_asks_for_more(data: bytes) -> None:
    assert outcome(data) is None


def test_a_header_is_found_in_any_case() -> None:
    head = parse_head(b"x-One: 1\nX-ONE: 2\n\n")
    assert head is not None
    assert head.get("X-One") == "1"
    assert head.get("X-Two") is None


LINES = st.sampled_from(
    [
        b"Status: 200 OK",
        b"Status: x",
        b"HTTP/1.1 200 OK",
        b"X: y",
        b"X",
        b" x",
        b"",
        b"\r",
        b"X: \0",
        b"Location: /",
        b":",
    ]
)
PIECES = st.lists(st.tuples(LINES | st.binary(max_size=12), st.sampled_from([b"\r\n", b"\n", b"\r", b""])), max_size=8)
RESPONSES = st.binary(max_size=80) | PIECES.map(lambda pairs: b"".join(line + end for line, end in pairs))


@given(RESPONSES, st.sampled_from([20, 65536]))
def test_any_bytes_are_a_head_more_or_a_malformed_response_the_same_whole_or_split(data: bytes, limit: int) -> None:
    whole = outcome(data, limit)
    piecewise = decided(data, limit)
    if isinstance(whole, str) or isinstance(piecewise, str):
        assert isinstance(whole, str)
        assert isinstance(piecewise, str)
    else:
        assert piecewise == whole
